from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import trainkit as tk
from trainkit.fit import device
from trainkit.spec import JobSpec


def calibrated(monkeypatch: pytest.MonkeyPatch, seconds: dict[int, list[float]], cores: int = 4) -> int:
    """The choice when a step takes the given times, in turn, with each number of threads."""
    monkeypatch.setattr(device, "available_cores", lambda: cores)
    measured = {threads: iter(times) for threads, times in seconds.items()}
    monkeypatch.setattr(device, "_seconds", lambda *_: next(measured[torch.get_num_threads()]))
    before = torch.get_num_threads()
    chosen = device.calibrate_threads(nn.Linear(1, 1), lambda _: None, steps=1000)
    assert torch.get_num_threads() == before
    return chosen


def test_short_steps_take_one_thread_without_trying(monkeypatch):
    assert calibrated(monkeypatch, {1: [1e-3], 4: []}) == 1


def test_clearly_faster_threads_are_taken(monkeypatch):
    assert calibrated(monkeypatch, {1: [0.1] * 9, 4: [0.05] * 9}) == 4


@pytest.mark.parametrize(
    "many",
    [[0.1] * 9, [0.09] * 9, [0.05, 0.05, 0.05, 0.05, 0.4, 0.4, 0.05]],
    ids=["tie", "a little faster", "one noisy round"],
)
def test_a_tie_or_noise_means_one(monkeypatch, many):
    assert calibrated(monkeypatch, {1: [0.1] * 9, 4: many}) == 1


def test_one_core_or_a_short_run_is_not_calibrated(monkeypatch):
    assert calibrated(monkeypatch, {}, cores=1) == 1
    monkeypatch.setattr(device, "available_cores", lambda: 4)
    assert device.calibrate_threads(nn.Linear(1, 1), lambda _: None, steps=3) == 1


def test_a_device_that_is_not_there_is_said(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="device cuda:1 was asked for"):
        device.choose_device("cuda:1")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert device.choose_device("auto") == torch.device("cpu")


def test_the_spec_decides_where_it_says_something():
    document = {"dataset": "d", "model": {"kind": "cnn"}, "train": {"precision": "bfloat16", "threads": 3}}
    spec = JobSpec.model_validate({**document, "train": {**document["train"], "channels_last": True}})
    runtime = device.choose_runtime(spec, torch.device("cpu"), nn.Linear(1, 1), lambda _: None, 10)
    assert (runtime.precision, runtime.threads, runtime.channels_last) == ("bfloat16", 3, True)
    assert not runtime.compile
    again = device.reuse_runtime({**runtime.as_dict(), "parameters": 5, "type": "runtime"})
    assert again == runtime


def test_compiling_without_a_compiler_is_not_tried(monkeypatch):
    spec = JobSpec.model_validate({"dataset": "d", "model": {"kind": "mlp"}, "train": {"compile": True}})
    monkeypatch.delenv("CXX", raising=False)
    for compiler in ("/usr/bin/g++", None):
        monkeypatch.setattr(device.shutil, "which", lambda _, compiler=compiler: compiler)
        runtime = device.choose_runtime(spec, torch.device("cpu"), nn.Linear(1, 1), lambda _: None, 10)
        assert runtime.compile == (compiler is not None)


@pytest.mark.soak
@pytest.mark.skipif(not device.can_compile(torch.device("cpu")), reason="no C++ compiler here")
def test_a_compiled_network_trains_as_the_plain_one_does():
    """A minute of compiling: with `make soak`."""
    x = np.random.default_rng(0).normal(size=(300, 6))
    data = tk.Dataset.from_arrays(x, (x[:, 0] > 0).astype(int))
    document = {"dataset": "d", "model": {"kind": "mlp", "hidden": [8]}, "train": {"epochs": 5}}
    plain, compiled = (
        tk.fit({**document, "train": {"epochs": 5, "compile": compiles}}, data) for compiles in (False, True)
    )
    assert compiled.runtime["compile"]
    assert compiled.evaluation["metrics"]["loss"] == pytest.approx(plain.evaluation["metrics"]["loss"], rel=1e-3)
    of_units = [[row["value"] for row in run.history if row["name"] == "dead_units"] for run in (plain, compiled)]
    assert len(of_units[0]) == 5
    assert of_units[0] == of_units[1], "hooks do not reach into compiled code: units are heard beside it"


def test_promises_of_equal_bits_are_made_for_the_deterministic_cpu_alone():
    spec = JobSpec.model_validate({"dataset": "d", "model": {"kind": "mlp"}, "train": {"threads": 1}})
    runtime = device.choose_runtime(spec, torch.device("cpu"), nn.Linear(1, 1), lambda _: None, 10)
    assert runtime.resume_exact
    assert not device.reuse_runtime({**runtime.as_dict(), "device": "cuda:0"}).resume_exact
    assert not device.reuse_runtime({**runtime.as_dict(), "deterministic": False}).resume_exact
