from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import trainkit as tk
from tests.support.fit_data import images, numbers, spec, vectors
from trainkit.data.dataset import make_dataset
from trainkit.fit.models.transfer import read_tensors

CNN = {"kind": "cnn", "channels": [4, 4, 6]}
START: dict[str, Any] = {"model": "mdl_1"}


@pytest.fixture(scope="module")
def source():
    return tk.fit(spec(CNN), images()).model


def tune(source: Any, start: dict[str, Any] | None = None, **fields: Any):
    events: list[dict[str, Any]] = []
    document = spec(CNN, start_from={**START, **(start or {})}, **fields)
    result = tk.fit(document, images(classes=3), source=source, on_event=events.append)
    return result, events


def weights(model: Any) -> dict[str, torch.Tensor]:
    return dict(model.network.state_dict())


def differing(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> set[str]:
    return {name for name in a if name in b and (a[name].shape != b[name].shape or not torch.equal(a[name], b[name]))}


def test_a_frozen_body_keeps_every_bit_batch_norm_included(source):
    result, events = tune(source, {"freeze": "body"}, augment=[{"kind": "noise"}])
    assert differing(weights(source), weights(result.model)) == {"head.output.weight", "head.output.bias"}
    (message,) = [e["message"] for e in events if e["type"] == "log" and "took" in e["message"]]
    assert message == f"took {len([n for n in weights(source) if n.startswith('body')])} tensors from the source"
    assert next(e for e in events if e["type"] == "runtime")["parameters"] > 0


def test_cached_features_change_nothing_but_time(source):
    cached, _ = tune(source, {"freeze": "body", "cache_features": True})
    plain, _ = tune(source, {"freeze": "body", "cache_features": False})
    for name, tensor in weights(plain.model).items():
        torch.testing.assert_close(weights(cached.model)[name], tensor, rtol=1e-4, atol=1e-5)


def test_without_freezing_everything_moves(source):
    result, _ = tune(source)
    moved = differing(weights(source), weights(result.model))
    assert {name for name in weights(source) if name.endswith("weight")} <= moved


def test_a_new_head_with_hidden_layers_survives_saving(source, tmp_path):
    result, _ = tune(source, {"freeze": "body", "head_hidden": [10]})
    assert weights(result.model)["head.hidden_1.linear.weight"].shape == (10, 6)
    again = tk.load_model(result.model.save(tmp_path))
    x = images().inputs.pixels[:3]
    assert again.predict(x) == result.model.predict(x)


def test_phases_open_layers_one_after_the_other(source):
    phases = [{"epochs": 1}, {"epochs": 2, "unfreeze": 1, "lr": 1e-2, "body_lr": 1e-3}]
    rates: list[float] = []
    result, events = tune(source, {"freeze": "body", "phases": phases})
    moved = differing(weights(source), weights(result.model))
    assert {name.split(".")[1] for name in moved if name.startswith("body")} == {"block_3"}
    for event in events:
        if event["type"] == "metrics":
            rates += [value for _, name, value in event["rows"] if name == "lr"]
    assert rates == [1e-3, 1e-2, 1e-2]
    assert len({e["phase"] for e in events if e["type"] == "phase" and e["phase"].startswith("epoch")}) == 3


def test_phases_resume_exactly(source, tmp_path):
    phases = [{"epochs": 2}, {"epochs": 2, "unfreeze": 1, "body_lr": 1e-3}, {"epochs": 1, "unfreeze": "all"}]
    document = spec(CNN, start_from={**START, "freeze": "body", "phases": phases}, train={"checkpoint_seconds": 0})
    data, events = images(classes=3), []
    whole = tk.fit(document, data, source=source, on_event=events.append, workdir=tmp_path)
    saved = [event["path"] for event in events if event["type"] == "checkpoint"]
    assert len(saved) == 4
    from pathlib import Path

    kept = [path for path in saved if Path(path).exists()]
    assert len(kept) == 3
    for path in kept:
        resumed = tk.fit(document, data, source=source, resume_from=path)
        assert not differing(weights(whole.model), weights(resumed.model))


STILL: dict[str, Any] = {"optimizer": {"kind": "sgd", "lr": 1e-12}}


def relabelled(names: list[str], seed: int = 1):
    """Images whose classes have these names, in this order."""
    data = images(classes=len(names), seed=seed)
    return make_dataset("images", data.inputs, data.targets, names, None)


def output_rows(model: Any) -> dict[str, torch.Tensor]:
    """Class -> its weights and bias in the output layer."""
    weight, bias = (model.network.get_parameter(f"head.output.{name}") for name in ("weight", "bias"))
    return {name: torch.cat([weight[row], bias[row : row + 1]]) for row, name in enumerate(model.classes)}


@pytest.mark.parametrize(
    "names",
    [["ant", "bee", "cat"], ["cat", "ant", "bee"], ["cat", "ant"], ["bee", "ant"]],
    ids=["same", "another_order", "two_of_three", "two_turned"],
)
@pytest.mark.parametrize("hidden", [[], [6]], ids=["plain", "hidden_as_wide_as_the_features"])
def test_a_kept_head_gives_each_class_the_row_of_its_name(names: list[str], hidden: list[int], tmp_path: Any) -> None:
    body = tk.fit(spec(CNN), images()).model
    document = spec(CNN, start_from={**START, "head_hidden": hidden})
    three = tk.fit(document, relabelled(["ant", "bee", "cat"]), source=body).model
    before = output_rows(three)
    folder = three.save(tmp_path)
    for source in (three, folder, folder / "model.safetensors"):
        kept = spec(CNN, start_from={**START, "head": "keep", "freeze": "body"}, **STILL)
        result = tk.fit(kept, relabelled(names, seed=2), source=source)
        after = output_rows(result.model)
        assert list(after) == names
        for name in names:
            torch.testing.assert_close(after[name], before[name])
        x = images().inputs.pixels[:5]
        shares = [{name: one["probabilities"][name] for name in names} for one in three.predict(x)]
        for ours, source_shares in zip(result.model.predict(x), shares, strict=True):
            total = sum(source_shares.values())  # softmax over fewer classes
            assert ours["probabilities"] == pytest.approx(
                {name: p / total for name, p in source_shares.items()}, abs=1e-4
            )
        again = tk.load_model(result.model.save(tmp_path / "kept"))
        assert again.predict(x) == result.model.predict(x)


def test_a_head_that_cannot_be_kept_is_refused_with_what_to_do(source, tmp_path):
    document = spec(CNN, start_from={**START, "head": "keep"})

    def refusal(data: Any, given: Any) -> tuple[str, str, str, str]:
        with pytest.raises(tk.SpecError) as refused:
            tk.fit(document, data, source=given)
        (problem,) = refused.value.problems
        return problem.pointer, problem.code, problem.message, problem.hint

    where, code, message, hint = refusal(relabelled(["class 1", "dog"]), source)
    assert (where, code) == ("/start_from/head", "classes_differ")
    assert message == "the source's head does not know dog; it knows class 0, class 1"
    assert "new" in hint
    plain = tmp_path / "plain.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in weights(source).items()}, plain)
    assert refusal(images(), plain)[:2] == ("/start_from/head", "classes_unknown")
    saved_file = source.save(tmp_path / "artifact") / "model.safetensors"
    assert refusal(relabelled(["class 1", "dog"]), saved_file)[1] == "classes_differ", "it has its classes with it"
    wide = spec({**CNN, "channels": [4, 4, 8]}, start_from={**START, "head": "keep"})
    with pytest.raises(tk.SpecError, match="another shape") as refused:
        tk.fit(wide, images(), source=source)
    assert refused.value.problems[0].pointer == "/start_from/head"
    with pytest.raises(tk.SpecError, match="shapes a new head"):
        tk.fit(spec(CNN, start_from={**START, "head": "keep", "head_hidden": [4]}), images(), source=source)


def test_a_linear_model_is_kept_as_the_head_that_it_is():
    source = tk.fit(spec({"kind": "linear"}), vectors()).model
    kept = spec({"kind": "linear"}, start_from={**START, "head": "keep"}, **STILL)
    result = tk.fit(kept, vectors(seed=1), source=source)
    torch.testing.assert_close(output_rows(result.model), output_rows(source))
    with pytest.raises(tk.SpecError, match="no tensor of the source fits"):
        tk.fit(spec({"kind": "linear"}, start_from=START), vectors(seed=1), source=source)


def test_a_kept_head_of_numbers_predicts_the_same_values_on_another_scale() -> None:
    model = {"kind": "mlp", "hidden": [8]}
    source = tk.fit(spec(model), numbers()).model
    moved = numbers(seed=3)
    moved = tk.Dataset.from_arrays(moved.inputs.values, np.asarray(moved.targets) * 7 - 1000)
    result = tk.fit(spec(model, start_from={**START, "head": "keep"}, **STILL), moved, source=source)
    assert result.model.scaler.scale != pytest.approx(source.scaler.scale, rel=0.1)
    x = numbers().inputs.values[:9]
    np.testing.assert_allclose(
        [one["value"] for one in result.model.predict(x)], [one["value"] for one in source.predict(x)], rtol=1e-4
    )


def test_a_new_head_never_starts_from_the_numbers_of_its_source() -> None:
    first = tk.fit(spec(CNN, **STILL), images()).model  # its head still is as it was drawn
    tune_again = {"freeze": "body", **START}
    second = tk.fit(spec(CNN, start_from=tune_again, **STILL), images(), source=first).model
    third = tk.fit(spec(CNN, start_from=tune_again, **STILL), images(), source=second).model
    heads = [model.network.get_parameter("head.output.weight") for model in (first, second, third)]
    for one, other in ((0, 1), (1, 2), (0, 2)):
        assert not torch.isclose(heads[one], heads[other], atol=1e-3).any()
    again = tk.fit(spec(CNN, start_from=tune_again, **STILL), images(), source=first).model
    assert not differing(weights(second), weights(again)), "the same spec and source give the same bits"
    other_seed = tk.fit(spec(CNN, start_from=tune_again, train={"seed": 1}, **STILL), images(), source=first).model
    drawn = other_seed.network.get_parameter("head.output.weight")
    assert not torch.allclose(drawn, heads[1], atol=1e-3), "the job's own seed decides, too"
    hidden = {**tune_again, "head_hidden": [5]}
    fourth = tk.fit(spec(CNN, start_from=hidden, **STILL), images(), source=first).model
    fifth = tk.fit(spec(CNN, start_from=hidden, **STILL), images(), source=fourth).model
    assert not torch.isclose(
        fourth.network.head.hidden_1.linear.weight, fifth.network.head.hidden_1.linear.weight, atol=1e-3
    ).any()


BLOCKS = ["block_1", "block_2", "block_3"]


@pytest.mark.parametrize(
    ("start", "trained"),
    [
        ({"freeze": "none"}, BLOCKS),
        ({"freeze": "body"}, []),
        ({"freeze": {"first": 2}}, BLOCKS[2:]),
        ({"freeze": {"last": 2}}, BLOCKS[:1]),
        ({"freeze": ["block_2"]}, ["block_1", "block_3"]),
        ({"freeze": "body", "phases": [{"epochs": 1, "unfreeze": {"first": 1}}]}, BLOCKS[:1]),
        ({"freeze": "body", "phases": [{"epochs": 1, "unfreeze": {"last": 1}}]}, BLOCKS[2:]),
        ({"freeze": "body", "phases": [{"epochs": 1, "unfreeze": ["block_2"]}]}, ["block_2"]),
        ({"freeze": "body", "phases": [{"epochs": 1}, {"epochs": 1, "unfreeze": {"first": 2}}]}, BLOCKS[:2]),
        ({"freeze": "body", "phases": [{"epochs": 1, "unfreeze": "all"}]}, BLOCKS),
    ],
    ids=str,
)
def test_shallow_deep_or_named_blocks_are_trained_and_nothing_else(
    source: Any, start: dict[str, Any], trained: list[str]
) -> None:
    result, events = tune(source, start, train={"restore_best": False})
    moved = differing(weights(source), weights(result.model))
    assert {name.split(".")[1] for name in moved if name.startswith("body")} == set(trained)
    runtime = next(event for event in events if event["type"] == "runtime")
    sizes = {
        name: sum(p.numel() for p in result.model.network.get_submodule(f"body.{name}").parameters()) for name in BLOCKS
    }
    head = sum(p.numel() for p in result.model.network.head.parameters())
    assert runtime["parameters"] == head + sum(sizes.values())
    assert runtime["phases"][-1]["blocks"] == trained
    assert runtime["phases"][-1]["trainable"] == head + sum(sizes[name] for name in trained)
    assert runtime["trainable"] == max(phase["trainable"] for phase in runtime["phases"])


def test_what_is_trained_is_counted_for_each_phase(source):
    phases = [{"epochs": 1}, {"epochs": 2, "unfreeze": ["block_1"]}, {"epochs": 1, "unfreeze": 1}]
    _, events = tune(source, {"freeze": "body", "phases": phases})
    runtime = next(event for event in events if event["type"] == "runtime")
    # head 6 x 3 + 3; block_1: conv 1 -> 4 without bias and batch norm; block_3: conv 4 -> 6
    assert runtime["phases"] == [
        {"first_epoch": 1, "last_epoch": 1, "trainable": 21, "blocks": []},
        {"first_epoch": 2, "last_epoch": 3, "trainable": 21 + 36 + 8, "blocks": ["block_1"]},
        {"first_epoch": 4, "last_epoch": 4, "trainable": 21 + 216 + 12, "blocks": ["block_3"]},
    ]
    assert runtime["trainable"] == 21 + 36 + 8 + 216 + 12


@pytest.mark.parametrize(
    ("start", "pointer", "message"),
    [
        ({"freeze": ["block_7"]}, "/start_from/freeze", "no block block_7; its blocks are block_1, block_2, block_3"),
        ({"freeze": {"first": 4}}, "/start_from/freeze", "4 blocks are asked for, and the body has 3"),
        (
            {"freeze": "body", "phases": [{"epochs": 1}, {"epochs": 1, "unfreeze": 9}]},
            "/start_from/phases/1/unfreeze",
            "9 blocks are asked for",
        ),
        ({"freeze": {"first": 1, "last": 1}}, "/start_from/freeze", "either `first` or `last`"),
        ({"freeze": ["block_1"], "phases": [{"epochs": 1}]}, "/start_from", "each phase's `unfreeze`"),
    ],
)
def test_blocks_that_are_not_there_are_refused_before_anything_is_trained(
    source: Any, start: dict[str, Any], pointer: str, message: str
) -> None:
    with pytest.raises(tk.SpecError) as refused:
        tune(source, start)
    found = {(problem.pointer, problem.message) for problem in refused.value.problems}
    assert any(where.startswith(pointer) and message in text for where, text in found), found


def test_sources_of_every_form_give_the_same_tensors(source, tmp_path):
    folder = source.save(tmp_path / "artifact")
    save_file({name: t.contiguous() for name, t in weights(source).items()}, tmp_path / "plain.safetensors")
    torch.save(weights(source), tmp_path / "state.pt")
    for form in (source, folder, folder / "model.safetensors", tmp_path / "plain.safetensors", tmp_path / "state.pt"):
        assert not differing(weights(source), read_tensors(form))
        assert read_tensors(form).keys() == weights(source).keys()
    (tmp_path / "broken.safetensors").write_bytes(b"no weights")
    with pytest.raises(tk.SpecError, match="cannot be read as weights"):
        read_tensors(tmp_path / "broken.safetensors")


def test_a_pickle_is_never_run(tmp_path):
    import pickle

    class Evil:
        def __reduce__(self):
            return (np.save, (str(tmp_path / "canary"), np.ones(1)))

    (tmp_path / "evil.pt").write_bytes(pickle.dumps({"w": Evil()}, protocol=2))
    with pytest.raises(tk.SpecError):
        read_tensors(tmp_path / "evil.pt")
    assert not list(tmp_path.glob("canary*"))


def test_position_pairs_what_names_cannot(source):
    renamed = {f"layer{i}": t for i, (name, t) in enumerate(weights(source).items()) if name.startswith("body")}
    with pytest.raises(tk.SpecError, match="no tensor of the source fits"):
        tk.fit(spec(CNN, start_from=START), images(), source=_file(renamed))
    document = spec(CNN, start_from={**START, "match": "position", "freeze": "body"})
    result = tk.fit(document, images(), source=_file(renamed))
    assert {name.split(".")[0] for name in differing(weights(source), weights(result.model))} == {"head"}


def test_a_torchvision_state_dict_fits_by_name(tmp_path):
    import torchvision

    reference = torchvision.models.squeezenet1_1(weights=None)
    torch.save(reference.state_dict(), tmp_path / "squeezenet.pth")
    document = spec(
        {"kind": "torchvision", "name": "squeezenet1_1", "image_size": 24},
        start_from={"file": "squeezenet.pth", "freeze": "body"},
        train={"epochs": 1, "batch_size": 64},
    )
    result = tk.fit(document, images(60), source=tmp_path / "squeezenet.pth")
    backbone = result.model.network.body.backbone.state_dict()
    assert all(
        torch.equal(backbone[name], tensor) for name, tensor in reference.state_dict().items() if name in backbone
    )
    assert "features.0.weight" in backbone


def test_pretrained_init(source):
    document = spec({**CNN, "init": {"kind": "pretrained", "model": "mdl_1"}}, optimizer={"kind": "sgd", "lr": 1e-12})
    result = tk.fit(document, images(), source=source)
    torch.testing.assert_close(
        result.model.network.get_parameter("body.block_1.conv_1.weight"),
        source.network.get_parameter("body.block_1.conv_1.weight"),
    )


def test_pretrained_init_takes_the_head_by_class_name_or_not_at_all():
    three = tk.fit(spec(CNN), relabelled(["ant", "bee", "cat"])).model
    model = {**CNN, "init": {"kind": "pretrained", "model": "mdl_1"}}
    turned = tk.fit(spec(model, **STILL), relabelled(["cat", "ant"], seed=2), source=three).model
    for name, row in output_rows(turned).items():
        torch.testing.assert_close(row, output_rows(three)[name])
    events: list[dict[str, Any]] = []
    other = tk.fit(spec(model, **STILL), relabelled(["dog", "ant", "bee"]), source=three, on_event=events.append).model
    assert "head.output.weight" in differing(weights(three), weights(other)), "equal shapes are no equal classes"
    assert any("does not know dog" in str(event.get("message")) for event in events)
    kernel = "body.block_1.conv_1.weight"
    torch.testing.assert_close(other.network.get_parameter(kernel), three.network.get_parameter(kernel))


def test_a_missing_source_is_said():
    with pytest.raises(tk.SpecError, match="not given"):
        tk.fit(spec({"kind": "mlp"}, start_from=START), vectors())


def _file(tensors: dict[str, torch.Tensor]) -> Any:
    import tempfile
    from pathlib import Path

    path = Path(tempfile.mkdtemp()) / "weights.safetensors"
    save_file({name: t.contiguous() for name, t in tensors.items()}, path)
    return path
