from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import trainkit as tk
from tests.support.fit_data import images, spec, vectors
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


def test_keep_takes_the_head_too(source):
    document = spec(CNN, start_from={**START, "head": "keep"}, optimizer={"kind": "sgd", "lr": 1e-12})
    result = tk.fit(document, images(), source=source)
    for name in ("weight", "bias"):
        torch.testing.assert_close(
            result.model.network.get_parameter(f"head.output.{name}"),
            source.network.get_parameter(f"head.output.{name}"),
        )
    with pytest.raises(tk.SpecError, match="another shape"):
        tune(source, {"head": "keep"})


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
    own = result.model.network.body.backbone.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in reference.state_dict().items() if name in own)
    assert "features.0.weight" in own


def test_pretrained_init(source):
    document = spec({**CNN, "init": {"kind": "pretrained", "model": "mdl_1"}}, optimizer={"kind": "sgd", "lr": 1e-12})
    result = tk.fit(document, images(), source=source)
    torch.testing.assert_close(
        result.model.network.get_parameter("body.block_1.conv_1.weight"),
        source.network.get_parameter("body.block_1.conv_1.weight"),
    )


def test_a_missing_source_is_said():
    with pytest.raises(tk.SpecError, match="not given"):
        tk.fit(spec({"kind": "mlp"}, start_from=START), vectors())


def _file(tensors: dict[str, torch.Tensor]) -> Any:
    import tempfile
    from pathlib import Path

    path = Path(tempfile.mkdtemp()) / "weights.safetensors"
    save_file({name: t.contiguous() for name, t in tensors.items()}, path)
    return path
