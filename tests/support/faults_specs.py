"""Faults of what was asked for: sources that are not there or not usable, devices, waiting for data, divergence, time."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from sqlalchemy import delete

from service.deletion import service as deletion
from service.models.tables import Model
from tests.support.fault_table import Scene, add, fault
from worker import intake


def weights(name: str, write: Callable[[Path], object]) -> Callable[[Scene], Iterator[None]]:
    def act(scene: Scene) -> Iterator[None]:
        folder = scene.place.context.settings.home / "weights"
        folder.mkdir(exist_ok=True)
        write(folder / name)
        scene.spec = {"start_from": {"file": name}}
        yield

    return act


def other_weights(path: Path) -> None:
    save_file({"conv1.weight": torch.zeros(3, 3)}, path)


def torn_weights(path: Path) -> None:
    save_file({"conv1.weight": torch.zeros(300, 3)}, path)
    path.write_bytes(path.read_bytes()[:1000])


class Bomb:
    """Unpickling it writes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


def pickled_code(path: Path) -> None:
    path.write_bytes(pickle.dumps({"weight": Bomb(path.with_suffix(".exploded"))}))


USELESS = "weights_unusable"
add(
    "a weight file that is not there",
    weights("gone.safetensors", lambda _: None),
    "source_unavailable",
    "gone.s",
    "pointer",
)
add("weights of another architecture", weights("other.safetensors", other_weights), USELESS, "no tensor", "problems")
add("torn weights", weights("torn.safetensors", torn_weights), USELESS, "torn.safetensors cannot be read", "problems")
add("weights that are text", weights("text.pt", lambda p: p.write_text("hello")), USELESS, "text.pt", "problems")
add("an empty weight file", weights("empty.pt", lambda p: p.write_bytes(b"")), USELESS, "empty.pt", "problems")


@fault(USELESS, "code.pt cannot be read", "problems")
def pickled_weights_that_would_run_code(scene: Scene) -> Iterator[None]:
    yield from weights("code.pt", pickled_code)(scene)
    assert not (scene.place.context.settings.home / "weights" / "code.exploded").exists()


def after_a_job(scene: Scene) -> str:
    scene.submit(train={"epochs": 1, "threads": 1})
    scene.run()
    return scene.job


@fault("source_unavailable", "/start_from/job: job 'job_", "pointer")
def a_job_without_a_model_any_more(scene: Scene) -> Iterator[None]:
    first = after_a_job(scene)
    scene.submit(start_from={"job": first})
    with scene.place.context.sessions.begin() as session:
        session.execute(delete(Model).where(Model.job_id == first))
    yield


@fault(USELESS, "model.safetensors cannot be read")
def an_ensemble_with_a_torn_member(scene: Scene) -> Iterator[None]:
    first, second = after_a_job(scene), after_a_job(scene)
    folder = scene.place.context.storage.root / "models" / first / "1"
    (folder / "model.safetensors").write_bytes(b"torn")
    scene.submit(model={"kind": "ensemble", "members": [first, second]})
    yield


def device(name: str) -> Callable[[Scene], Iterator[None]]:
    def act(scene: Scene) -> Iterator[None]:
        scene.spec = {"resources": {"device": name, "max_attempts": 1}}
        yield

    return act


if not torch.cuda.is_available():
    add("a GPU where none is", device("cuda"), "device_unavailable", "device cuda was asked for")
add("an eighth GPU", device("cuda:7"), "device_unavailable", "device cuda:7 was asked for")


def waits_for(body: bytes, filename: str) -> Callable[[Scene], Iterator[None]]:
    """The job is submitted before the check of its data, which is all that is run."""

    def act(scene: Scene) -> Iterator[None]:
        scene.dataset = scene.place.upload(body, f"for {scene.folder.name}", filename)
        scene.submit(dataset={"id": scene.dataset, "target": "label"})
        assert scene.row().state == "validating"
        assert intake.claim_and_check(scene.place.context)
        yield

    return act


NO_LABEL = b"a,b,lable\n" + b"1,2,x\n2,1,y\n" * 30
MOSTLY_GAPS = b"a,label\n" + b"1,x\n2,y\n3,\n4,\n5,\n" * 20
add("a column that proves missing", waits_for(NO_LABEL, "t.csv"), "missing_column", "label", "errors")
add("a target that proves to be mostly gaps", waits_for(MOSTLY_GAPS, "t.csv"), "invalid_spec", "label", "errors")
add(
    "data that prove unusable",
    waits_for(b"PK\x03\x04 no zip", "x.zip"),
    "invalid_dataset",
    "dataset ds_",
    "dataset",
    "error",
)


@fault(None, state="cancelled")
def data_deleted_while_the_job_waits(scene: Scene) -> Iterator[None]:
    scene.dataset = scene.place.upload(b"a,label\n" + b"1,x\n2,y\n" * 30, "to be deleted", "t.csv", "label")
    while intake.claim_and_check(scene.place.context):
        pass
    scene.submit()
    assert scene.row().state == "queued"
    context = scene.service()
    with context.sessions.begin() as session:
        deletion.delete_dataset(session, context, scene.place.who, scene.dataset, force=True)
    yield


STEEP = {
    "model": {"kind": "mlp", "hidden": [8], "activation": "linear"},
    "loss": {"kind": "mse"},
    "optimizer": {"kind": "sgd", "lr": 1000.0},
    "train": {"epochs": 50, "batch_size": 8, "threads": 1},
}


@fault("loss_not_finite", "at step", "step", "layer", "where")
def a_loss_that_is_not_finite(scene: Scene) -> Iterator[None]:
    scene.spec = STEEP
    yield


@fault(None, state="stopped")
def a_loss_that_grows(scene: Scene) -> Iterator[None]:
    rule = {"kind": "diverged", "factor": 2.0}
    train = {"epochs": 50, "batch_size": 128, "threads": 1, "seed": 1}
    optimizer = {"kind": "sgd", "lr": 10.0}
    scene.spec = {**STEEP, "model": {"kind": "linear"}, "optimizer": optimizer, "train": train, "early_stop": [rule]}
    yield
    assert (scene.row().stop_reason, bool((scene.row().result or {})["model"])) == ("diverged", True)


@fault(None, state="stopped")
def no_more_time(scene: Scene) -> Iterator[None]:
    scene.spec = {"train": {"epochs": 100_000, "threads": 1}, "resources": {"max_seconds": 0.3, "max_attempts": 1}}
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < 60
    assert (scene.row().stop_reason, bool((scene.row().result or {})["model"])) == ("time_limit", True)
