"""Faults of disks: full, over quota, gone, failing; in the spool, the checkpoint, the model, the storage, the data."""

from __future__ import annotations

import errno
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save_file

from service.storage import Storage, StoredBytes
from tests.support.fault_table import Scene, add, fault
from trainkit.data import Dataset
from trainkit.fit import checkpoint
from trainkit.fit.models import trained_model
from worker import processes


def refusal(number: int) -> Callable[..., Any]:
    def refuses(*_: object, **__: object) -> Any:
        raise OSError(number, os.strerror(number), "/mnt/disk/part")

    return refuses


def small_files_only(work: Callable[..., Any], most: int) -> Callable[..., Any]:
    """`work` while the kernel refuses to let any file grow beyond `most` bytes: EFBIG, as real as a full disk."""

    def confined(*arguments: Any, **options: Any) -> Any:
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
        try:
            return work(*arguments, **options)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))

    return confined


@fault("disk_full", "File too large", "errno", "log")
def no_room_for_the_spool(scene: Scene) -> Iterator[None]:
    be_first = processes.raise_oom_score

    def confined() -> None:
        be_first()
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))

    scene.patch.setattr(processes, "raise_oom_score", confined)
    yield


@fault("disk_full", "File too large", "errno", "log")
def no_room_for_a_checkpoint(scene: Scene) -> Iterator[None]:
    scene.spec = {"train": {"epochs": 3, "checkpoint_seconds": 0, "threads": 1}}
    scene.patch.setattr(checkpoint, "save_file", small_files_only(save_file, 500))
    yield


@fault("disk_full", "File too large", "errno")
def no_room_for_the_model(scene: Scene) -> Iterator[None]:
    scene.patch.setattr(trained_model, "save_file", small_files_only(save_file, 500))
    yield


def in_checkpoint(number: int) -> Callable[[Scene], Iterator[None]]:
    def act(scene: Scene) -> Iterator[None]:
        scene.spec = {"train": {"epochs": 3, "checkpoint_seconds": 0, "threads": 1}}
        scene.patch.setattr(checkpoint, "save", refusal(number))
        yield

    return act


def in_storage(number: int) -> Callable[[Scene], Iterator[None]]:
    def act(scene: Scene) -> Iterator[None]:
        scene.patch.setattr(shutil, "copytree", refusal(number))
        yield
        assert scene.row().result is None

    return act


def in_data(number: int) -> Callable[[Scene], Iterator[None]]:
    def act(scene: Scene) -> Iterator[None]:
        scene.patch.setattr(np, "load", refusal(number))
        yield

    return act


WHERE = {"a checkpoint": in_checkpoint, "the storage": in_storage, "the data": in_data}
for name, place, number, code in (
    ("quota spent in", "a checkpoint", errno.EDQUOT, "disk_full"),
    ("failing disk under", "a checkpoint", errno.EIO, "io_error"),
    ("no room in", "the storage", errno.ENOSPC, "disk_full"),
    ("quota spent in", "the storage", errno.EDQUOT, "disk_full"),
    ("failing disk under", "the storage", errno.EIO, "io_error"),
    ("read-only disk under", "the storage", errno.EROFS, "io_error"),
    ("server away of", "the storage", errno.ESTALE, "storage_unreachable"),
    ("failing disk under", "the data", errno.EIO, "io_error"),
    ("server away of", "the data", errno.ETIMEDOUT, "storage_unreachable"),
):
    add(f"{name} {place}", WHERE[place](number), code, ".../part", "errno", "traceback")


@fault("storage_unreachable", "the storage folder does not exist", "folder")
def the_storage_folder_is_gone(scene: Scene) -> Iterator[None]:
    scene.submit()
    root = scene.place.context.storage.root
    away = root.rename(root.with_name("away"))
    yield
    away.rename(root)


@fault("io_error", "incoming", "errno")
def a_file_where_the_storage_needs_a_folder(scene: Scene) -> Iterator[None]:
    incoming = scene.place.context.storage.root / "incoming"
    shutil.rmtree(incoming, ignore_errors=True)
    incoming.write_bytes(b"")
    yield
    incoming.unlink()


def damaged(change: Callable[[Path], object]) -> Callable[[Scene], Iterator[None]]:
    def act(scene: Scene) -> Iterator[None]:
        scene.submit()
        change(scene.prepared())
        yield

    return act


def shorter(folder: Path) -> None:
    np.save(folder / "column-1.npy", np.load(folder / "column-1.npy")[:50])


def loses(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def cut(name: str) -> Callable[[Path], None]:
    return lambda folder: os.truncate(folder / name, 150)


def written(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text)


add("no prepared form", damaged(shutil.rmtree), "data_damaged", "the prepared form of ds_", "dataset")
add("no meta.json", damaged(loses("meta.json")), "data_damaged", "the prepared form of ds_", "dataset")
add("an array is gone", damaged(loses("column-0.npy")), "data_damaged", "column-0.npy", "problems")
add("a truncated array", damaged(cut("column-0.npy")), "data_damaged", "not a prepared dataset", "problems")
add("a shorter array", damaged(shorter), "data_damaged", "the 120 samples of its facts", "problems")
add("damaged JSON", damaged(written("meta.json", '{"facts": {')), "data_damaged", "not a prepared", "problems")
add("other JSON", damaged(written("meta.json", "[1]")), "data_damaged", "not a prepared", "problems")


@fault("data_damaged", "became damaged while it was read (SIGBUS)", "exit_status", "log")
def a_mapped_array_that_shrinks(scene: Scene) -> Iterator[None]:
    folder, load = scene.prepared(), Dataset.load
    scene.settings = {"confinement": "off"}  # the process changes its dataset in the stead of another one

    def then_shrinks(path: Path) -> Dataset:
        loaded = load(path)
        os.truncate(folder / "column-0.npy", 0)
        return loaded

    ours = os.getpid()  # the supervisor looks at the data too
    scene.patch.setattr(Dataset, "load", lambda path: (load if os.getpid() == ours else then_shrinks)(path))
    yield


@fault("invalid_data", "sample 7: the label 9 is outside 0..1", "problems")
def a_label_out_of_range(scene: Scene) -> Iterator[None]:
    scene.submit()
    change(scene.prepared() / "column-2.npy", 9)
    yield


@fault("invalid_data", 'column "a": the value is inf', "problems")
def infinite_inputs(scene: Scene) -> Iterator[None]:
    scene.submit()
    change(scene.prepared() / "column-0.npy", np.inf, slice(None))
    yield


def change(file: Path, value: float, where: int | slice = 7) -> None:
    array = np.load(file)
    array[where] = value
    np.save(file, array)


@fault(None, state="succeeded")
def no_room_for_a_stored_checkpoint(scene: Scene) -> Iterator[None]:
    """It costs the way back, and no more: the job goes on."""
    scene.spec = {"train": {"epochs": 3, "checkpoint_seconds": 0, "threads": 1}}
    put = Storage.put_file

    def full(storage: Storage, key: str, source: Path) -> StoredBytes:
        if key.startswith("checkpoints/"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), key)
        return put(storage, key, source)

    scene.patch.setattr(Storage, "put_file", full)
    yield
    assert scene.row().result is not None
