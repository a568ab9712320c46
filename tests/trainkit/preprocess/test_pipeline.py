"""Preprocessing against hand-worked vectors and scikit-learn, and where it is hard: offsets, rank, d > n."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from trainkit.preprocess import Pipeline, pipeline

X = np.arange(1.0, 16.0).reshape(5, 3)
RANDOM = np.random.default_rng(0).normal(size=(60, 7)) @ np.random.default_rng(1).normal(size=(7, 7)) + 3


def fitted(x: Any, *steps: dict[str, Any]) -> np.ndarray:
    return pipeline(steps).fit(x).transform(x)


@pytest.mark.parametrize(
    ("step", "column"),
    [
        ({"kind": "zero_mean"}, [-6, -3, 0, 3, 6]),
        ({"kind": "min_max"}, [0, 0.25, 0.5, 0.75, 1]),
        ({"kind": "min_max", "range": [-1, 1]}, [-1, -0.5, 0, 0.5, 1]),
        ({"kind": "z_score"}, [-1.41421356, -0.70710678, 0, 0.70710678, 1.41421356]),
        ({"kind": "whiten"}, [-0.73029669, -0.36514834, 0, 0.36514834, 0.73029669]),
    ],
)
def test_elementwise_steps_by_hand(step: dict[str, Any], column: list[float]) -> None:
    expected = np.repeat(np.array(column)[:, None], 3, axis=1)
    np.testing.assert_allclose(fitted(X, step), expected, atol=2e-7)


def test_pca_by_hand() -> None:
    pipe = pipeline([{"kind": "pca", "components": 2}]).fit(X)
    out = pipe.transform(X)
    np.testing.assert_allclose(out[:, 0], [-10.39230485, -5.19615242, 0, 5.19615242, 10.39230485], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(out[:, 1], 0, atol=1e-6)
    np.testing.assert_allclose(pipe.fitted[0].explained_variance_ratio, [1, 0], atol=1e-12)


def test_whitened_covariance_of_the_worked_example() -> None:
    white = fitted(X, {"kind": "whiten"})
    np.testing.assert_allclose(np.cov(white.T), np.full((3, 3), 0.33333328), atol=1e-6)


@pytest.mark.parametrize("solver", ["eigh", "svd"])
@pytest.mark.parametrize("components", [1, 3, 7, 0.5, 0.95, "all"])
def test_pca_equals_scikit_learn_up_to_sign(solver: str, components: Any) -> None:
    ours = fitted(RANDOM, {"kind": "pca", "components": components, "solver": solver})
    reference = PCA(n_components=None if components == "all" else components, svd_solver="full").fit(RANDOM)
    projected = reference.transform(RANDOM)
    assert ours.shape == projected.shape
    signs = np.sign((ours * projected).sum(axis=0))
    np.testing.assert_allclose(ours * signs, projected, atol=1e-5)


@pytest.mark.parametrize("solver", ["eigh", "svd"])
def test_each_component_has_its_largest_entry_positive(solver: str) -> None:
    components = pipeline([{"kind": "pca", "solver": solver}]).fit(RANDOM).fitted[0].back
    assert (components[np.arange(len(components)), np.abs(components).argmax(axis=1)] > 0).all()


@pytest.mark.parametrize("method", ["zca", "pca"])
def test_whitening_by_eigh_equals_whitening_by_svd(method: str) -> None:
    by = [fitted(RANDOM, {"kind": "whiten", "method": method, "solver": solver}) for solver in ("eigh", "svd")]
    np.testing.assert_allclose(by[0], by[1], atol=1e-5)
    np.testing.assert_allclose(np.cov(by[0].T), np.eye(7), atol=1e-3)


def test_rank_deficient_data_are_not_amplified() -> None:
    deficient = np.concatenate([RANDOM, RANDOM[:, :3] @ np.ones((3, 2))], axis=1)
    for solver in ("eigh", "svd"):
        assert np.abs(fitted(deficient, {"kind": "whiten", "eps": 0, "solver": solver})).max() < 10


@pytest.mark.parametrize("offset", [0, 1000])
@pytest.mark.parametrize("solver", ["eigh", "svd"])
def test_rounding_of_a_float32_input_is_no_direction_of_its_own(solver: str, offset: float) -> None:
    full = np.random.default_rng(5).normal(size=(300, 5)) @ np.random.default_rng(6).normal(size=(5, 5))
    deficient = (np.concatenate([full, full[:, :3] @ np.ones((3, 2))], axis=1) + offset).astype(np.float32)
    white = {"kind": "whiten", "method": "pca", "eps": 0, "solver": solver}
    for before in ([], ["zero_mean"], ["z_score"], ["min_max"], ["pca"], ["zero_mean", "pca"]):
        out = fitted(deficient, *({"kind": kind} for kind in before), white)
        assert out.shape == (300, 5), before
        np.testing.assert_allclose(np.cov(out.T), np.eye(5), atol=1e-3)


@pytest.mark.parametrize("solver", ["eigh", "svd"])
def test_the_rounding_of_a_large_feature_hides_no_small_one(solver: str) -> None:
    random = np.random.default_rng(9)
    income, share = random.normal(size=500) * 1e6, random.normal(size=500) * 0.05
    x = np.column_stack([income, share, np.full(500, 3e7)]).astype(np.float32)
    white = fitted(x, {"kind": "whiten", "method": "pca", "eps": 0, "solver": solver})
    expected = PCA(2, whiten=True, svd_solver="full").fit_transform(x.astype(np.float64))
    np.testing.assert_allclose(np.abs(white), np.abs(expected), atol=1e-3)
    assert fitted(x, {"kind": "pca", "components": 1.0, "solver": solver}).shape == (500, 2)


@pytest.mark.parametrize("solver", ["eigh", "svd"])
def test_whitening_equals_scikit_learn_up_to_sign(solver: str) -> None:
    """Without eps pca-whitening is scikit-learn's, and zca is that turned back by the components."""
    reference = PCA(whiten=True, svd_solver="full").fit(RANDOM)
    expected = reference.transform(RANDOM)
    ours = fitted(RANDOM, {"kind": "whiten", "method": "pca", "eps": 0, "solver": solver})
    np.testing.assert_allclose(ours * np.sign((ours * expected).sum(axis=0)), expected, atol=1e-5)
    zca = fitted(RANDOM, {"kind": "whiten", "eps": 0, "solver": solver})
    np.testing.assert_allclose(zca, expected @ reference.components_, atol=1e-5)


@pytest.mark.parametrize("solver", ["eigh", "svd"])
def test_eps_is_added_to_the_eigenvalue_under_the_root(solver: str) -> None:
    """X of the worked example varies along (1, 1, 1)/sqrt(3) alone, with eigenvalue 3 * 22.5."""
    factor = 1 / np.sqrt(67.5 + 2.5)
    expected = np.repeat(np.array([-6.0, -3, 0, 3, 6])[:, None] * factor, 3, axis=1)
    np.testing.assert_allclose(fitted(X, {"kind": "whiten", "eps": 2.5, "solver": solver}), expected, atol=1e-6)


def test_more_features_than_samples() -> None:
    wide = np.random.default_rng(2).normal(size=(10, 200))
    ours = fitted(wide, {"kind": "pca", "components": 5})
    expected = PCA(5, svd_solver="full").fit_transform(wide)
    np.testing.assert_allclose(np.abs(ours), np.abs(expected), atol=1e-5)
    assert np.isfinite(fitted(wide, {"kind": "whiten"})).all()


def test_a_large_offset_in_float32_costs_no_digits() -> None:
    small = np.random.default_rng(3).normal(size=(500, 4)) * 0.01
    offset = (small + 1000).astype(np.float32)
    exact = offset.astype(np.float64)
    reference = (exact - exact.mean(0)) / (exact.std(0) + 1e-8)
    np.testing.assert_allclose(fitted(offset, {"kind": "z_score"}), reference, atol=1e-4)
    pipe = pipeline([{"kind": "z_score"}]).fit(torch.from_numpy(offset))
    np.testing.assert_allclose(pipe.transform(torch.from_numpy(offset)).numpy(), reference, atol=1e-4)
    singular = np.linalg.svd(exact - exact.mean(0), compute_uv=False)
    values = fitted(offset, {"kind": "pca"}).std(axis=0, ddof=1)
    np.testing.assert_allclose(values, singular / np.sqrt(499), rtol=1e-3)


@pytest.mark.parametrize(("mean", "std"), [(100, 0.01), (1000, 0.01), (10, 0.001), (0, 1)])
@pytest.mark.parametrize(
    "kinds", [["z_score"], ["whiten"], ["zero_mean", "z_score"], ["min_max", "whiten"], ["zero_mean", "pca", "whiten"]]
)
def test_numpy_and_torch_agree_next_to_an_offset(kinds: list[str], mean: float, std: float) -> None:
    x = (np.random.default_rng(8).normal(size=(400, 5)) * std + mean).astype(np.float32)
    pipe = pipeline([{"kind": kind} for kind in kinds]).fit(x)
    np.testing.assert_allclose(pipe.transform(torch.from_numpy(x)).numpy(), pipe.transform(x), atol=2e-5)


def test_fit_accepts_constant_columns() -> None:
    constant = np.column_stack([np.full(20, 5.0), np.arange(20.0)])
    for kind in ("zero_mean", "min_max", "z_score", "pca", "whiten"):
        assert np.isfinite(fitted(constant, {"kind": kind})).all(), kind
    assert np.isfinite(fitted(np.ones((8, 3)), {"kind": "whiten"})).all()


def test_images_per_channel_and_per_pixel() -> None:
    images = np.random.default_rng(4).random((30, 3, 5, 6)).astype(np.float32)
    by_channel = fitted(images, {"kind": "z_score"})
    np.testing.assert_allclose(by_channel.mean(axis=(0, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(by_channel.std(axis=(0, 2, 3)), 1, atol=1e-5)
    by_pixel = fitted(images, {"kind": "zero_mean", "per": "pixel"})
    np.testing.assert_allclose(by_pixel.mean(axis=0), 0, atol=1e-6)
    zca = pipeline([{"kind": "whiten"}]).fit(images)
    assert zca.transform(images).shape == images.shape
    assert zca.output_shape((3, 5, 6)) == (3, 5, 6)
    flat = pipeline([{"kind": "pca", "components": 4}]).fit(images)
    assert flat.transform(images).shape == (30, 4)
    assert flat.output_shape((3, 5, 6)) == (4,)


USUAL = [{"kind": "zero_mean"}, {"kind": "pca", "components": 5}, {"kind": "whiten"}]


def test_numpy_and_torch_agree_and_the_state_survives() -> None:
    x = RANDOM.astype(np.float32)
    pipe = pipeline(USUAL).fit(x)
    np.testing.assert_allclose(pipe.transform(torch.from_numpy(x)).numpy(), pipe.transform(x), atol=1e-5)
    again = Pipeline.from_state(*pipe.state())
    assert np.array_equal(again.transform(x), pipe.transform(x))
    assert torch.equal(again.transform(torch.from_numpy(x)), pipe.transform(torch.from_numpy(x)))


@given(st.sampled_from([["zero_mean"], ["min_max"], ["z_score"], ["z_score", "pca"], ["zero_mean", "pca", "whiten"]]))
@settings(max_examples=10, deadline=None)
def test_inverse_transform(kinds: list[str]) -> None:
    pipe = pipeline([{"kind": kind} for kind in kinds]).fit(RANDOM)
    np.testing.assert_allclose(pipe.inverse_transform(pipe.transform(RANDOM)), RANDOM, atol=1e-4)


def test_image_pipelines_agree_between_numpy_and_torch_in_both_precisions() -> None:
    images = np.random.default_rng(7).random((40, 3, 4, 4)).astype(np.float32)
    pipe = pipeline([{"kind": "z_score"}, {"kind": "whiten", "eps": 1e-2}]).fit(images)
    by_torch = pipe.transform(torch.from_numpy(images))
    assert by_torch.dtype == torch.float32
    np.testing.assert_allclose(by_torch.numpy(), pipe.transform(images), atol=1e-5)
    doubled = pipe.transform(torch.from_numpy(images).double())
    assert doubled.dtype == torch.float64
    np.testing.assert_allclose(doubled.numpy(), pipe.transform(images.astype(np.float64)), atol=1e-6)


def test_a_pipeline_first_used_in_inference_mode_can_be_differentiated_afterwards() -> None:
    pipe = pipeline(USUAL).fit(RANDOM)
    x = torch.from_numpy(RANDOM)
    with torch.inference_mode():
        pipe.transform(x)
    given_x = x.clone().requires_grad_(True)
    pipe.transform(given_x).sum().backward()
    assert given_x.grad is not None


def test_chunked_covariance_is_that_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fitted(RANDOM, {"kind": "pca"})
    monkeypatch.setattr("trainkit.preprocess.moments.CHUNK_VALUES", 50)
    np.testing.assert_allclose(fitted(RANDOM, {"kind": "pca"}), whole, atol=1e-10)


def test_impute_is_left_to_the_table_encoder() -> None:
    pipe = pipeline([{"kind": "impute"}, {"kind": "zero_mean"}]).fit(X)
    assert [step.kind for step in pipe.fitted] == ["zero_mean"]


def test_the_state_is_json_and_arrays() -> None:
    description, arrays = pipeline([{"kind": "min_max"}, *USUAL]).fit(RANDOM).state()
    again = Pipeline.from_state(json.loads(json.dumps(description)), arrays)
    assert all(isinstance(array, np.ndarray) for array in arrays.values())
    assert again.transform(RANDOM).shape == (60, 5)


def test_fit_refuses_too_many_components() -> None:
    with pytest.raises(ValueError, match="9 components of 7 features"):
        pipeline([{"kind": "pca", "components": 9}]).fit(RANDOM)


def test_fit_refuses_nan() -> None:
    with pytest.raises(ValueError, match="NaN"):
        pipeline([{"kind": "z_score"}]).fit(np.array([[1.0, np.nan], [2, 3]]))


def test_transform_before_fit_raises() -> None:
    pipe = pipeline([{"kind": "z_score"}])
    for use in (pipe.transform, pipe.inverse_transform):
        with pytest.raises(ValueError, match="not been fitted"):
            use(RANDOM)


def test_inverse_transform_keeps_the_type() -> None:
    pipe = pipeline(USUAL[:1]).fit(RANDOM)
    x = torch.from_numpy(RANDOM).float()
    back = pipe.inverse_transform(pipe.transform(x))
    assert back.dtype == torch.float32
    torch.testing.assert_close(back, x)
    assert pipe.inverse_transform(RANDOM.astype(np.float32)).dtype == np.float32


@pytest.mark.parametrize(
    ("step", "peer"), [({"kind": "z_score"}, StandardScaler()), ({"kind": "min_max"}, MinMaxScaler())]
)
def test_constant_training_column_is_only_shifted(step: dict[str, Any], peer: Any) -> None:
    """Held-out samples that differ there are shifted, as scikit-learn has it, and not blown up by 1e8."""
    x = np.column_stack([RANDOM[:, 0], np.zeros(60), np.full(60, 0.1)])
    new = np.array([[1.0, 0.5, 0.7], [-2.0, -3.0, 0.1]])
    out = pipeline([step]).fit(x).transform(new)
    np.testing.assert_allclose(out, peer.fit(x).transform(new), rtol=1e-6, atol=1e-6)
