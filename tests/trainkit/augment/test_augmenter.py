"""The augmenter as a whole: a function of (seed, epoch, step), different for each sample, careful with its input."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from trainkit.augment import build, variants
from trainkit.augment.seeding import mixed

EVERYTHING: list[dict[str, object]] = [
    {"kind": kind}
    for kind in (
        "rotate",
        "translate",
        "horizontal_flip",
        "scale",
        "shear",
        "random_resized_crop",
        "vertical_flip",
        "random_crop",
        "brightness",
        "contrast",
        "saturation",
        "hue",
        "noise",
        "value_shift",
        "random_erasing",
        "rand_augment",
        "trivial_augment",
        "mixup",
        "cutmix",
    )
]


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(16, 3, 12, 10, generator=generator), torch.eye(4)[torch.arange(16) % 4]


def at(steps: list[dict[str, object]], seed: int, epoch: int, step: int) -> tuple[Tensor, Tensor]:
    x, y = build(steps).apply(*batch(), seed=seed, epoch=epoch, step=step)
    assert y is not None
    return x, y


@pytest.mark.parametrize("steps", [EVERYTHING, *([step] for step in EVERYTHING)], ids=lambda steps: steps[0]["kind"])
def test_the_same_triple_repeats_the_same_bits_and_another_does_not(steps: list[dict[str, object]]) -> None:
    x, y = at(steps, 3, 2, 7)
    torch.manual_seed(99)  # the global generator plays no part
    again_x, again_y = at(steps, 3, 2, 7)
    assert torch.equal(x, again_x)
    assert torch.equal(y, again_y)
    for other in ((4, 2, 7), (3, 3, 7), (3, 2, 8)):
        assert not torch.equal(at(steps, *other)[0], x)


@pytest.mark.parametrize("step", EVERYTHING[:-2], ids=lambda step: step["kind"])
def test_copies_of_one_image_differ_within_the_batch(step: dict[str, object]) -> None:
    image = batch()[0][0]
    out, _ = build([step]).apply(image.expand(32, *image.shape), seed=0, epoch=1, step=0)
    assert len(out.flatten(1).unique(dim=0)) > 1


@pytest.mark.parametrize("step", EVERYTHING, ids=lambda step: step["kind"])
def test_the_batch_that_is_given_stays_as_it_is_and_the_range_holds(step: dict[str, object]) -> None:
    x, y = batch()
    before = x.clone()
    out, soft = build([step]).apply(x, y, seed=0, epoch=1, step=0)
    assert torch.equal(x, before)
    assert out.shape == x.shape
    assert out.min() >= 0
    assert out.max() <= 1 + 1e-5
    assert soft is not None
    torch.testing.assert_close(soft.sum(1), torch.ones(16))


def test_apply_does_not_use_the_global_generator() -> None:
    state = torch.get_rng_state()
    at(EVERYTHING, 0, 1, 0)
    assert torch.equal(torch.get_rng_state(), state)


def test_neighbouring_geometry_is_sampled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, ...]] = []
    sample = torch.nn.functional.grid_sample

    def counted(x: Tensor, *rest: Any, **options: Any) -> Tensor:
        calls.append(tuple(x.shape))
        return sample(x, *rest, **options)

    monkeypatch.setattr(torch.nn.functional, "grid_sample", counted)
    at([{"kind": kind} for kind in ("rotate", "horizontal_flip", "translate", "scale")], 0, 1, 0)
    assert len(calls) == 1


def test_no_steps_change_nothing() -> None:
    assert torch.equal(at([], 0, 1, 0)[0], batch()[0])


def test_the_hash_of_a_triple_is_stable_and_tells_its_parts_apart() -> None:
    assert mixed(0, 1, 2) == mixed(0, 1, 2)
    triples = {mixed(seed, epoch, step) for seed in range(8) for epoch in range(8) for step in range(8)}
    assert len(triples) == 512
    assert all(0 <= value < 1 << 63 for value in triples)


def test_variants_are_different_copies_of_one_image() -> None:
    image = batch()[0][0]
    out = variants(image, [{"kind": "rotate"}, {"kind": "brightness"}])
    assert out.shape == (20, 3, 12, 10)
    assert len(out.flatten(1).unique(dim=0)) == 20
    assert torch.equal(out, variants(image, [{"kind": "rotate"}, {"kind": "brightness"}]))
    assert not torch.equal(out, variants(image, [{"kind": "rotate"}, {"kind": "brightness"}], seed=1))
    assert variants(image, [], count=3).shape == (3, 3, 12, 10)


@pytest.mark.parametrize("shape", [(6, 3), (6, 3, 5)], ids=["table", "sequences"])
@pytest.mark.parametrize(
    "step", [s for s in EVERYTHING if s["kind"] not in ("noise", "mixup")], ids=lambda s: s["kind"]
)
def test_image_steps_refuse_other_samples(step: dict[str, object], shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=f"{step['kind']} is for images"):
        build([step]).apply(torch.rand(shape), seed=0, epoch=1, step=0)
