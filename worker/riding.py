"""In the training process: several jobs trained in one go, and taking over what such a run has left."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker.beginning import sha256_of
from worker.control import Control
from worker.rides import MANIFEST, Companion, Package, folder_of

if TYPE_CHECKING:
    from trainkit.data import Dataset
    from trainkit.fit.run import FitResult

Event = dict[str, Any]
OnEvent = Callable[[Event], None]
EVENTS = "events.jsonl"


class Recorder:
    """What is said of a companion, in the folder that its files go into: by names relative to that folder."""

    def __init__(self, folder: Path, companion: Companion) -> None:
        folder.mkdir(parents=True)
        self._folder, self._companion = folder.absolute(), companion
        self._file = (folder / EVENTS).open("w", encoding="utf-8")

    def tell(self, event: Event) -> None:
        """Append one event."""
        told = with_paths(event, lambda path: Path(path).relative_to(self._folder).as_posix())
        self._file.write(json.dumps(told) + "\n")

    def close(self, *, whole: bool) -> None:
        """The trial is over; a `whole` one is to be taken over, and says how each of its files must look."""
        self._file.close()
        if not whole:
            return
        files = {path.relative_to(self._folder).as_posix(): sha256_of(path) for path in sorted(_files(self._folder))}
        manifest = {**self._companion.about, "versions": versions(), "files": files}
        (self._folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")


class Along:
    """A companion's wishes: it is given up with the first wish for its leader, or when that one has failed."""

    def __init__(self, control: Control, leader_failed: Callable[[], bool]) -> None:
        self._control, self._failed = control, leader_failed

    def wish(self) -> dict[str, Any] | None:
        """To be given up, or None to go on."""
        return {"action": "cancel"} if self._failed() or self._control.wish() is not None else None


def train_together(
    spec: dict[str, Any],
    companions: tuple[Companion, ...],
    data: Dataset,
    workdir: Path,
    on_event: OnEvent,
    control: Control,
) -> FitResult | None:
    """The leader's result, the others' packages in their folders; None where it had better train alone.

    Raises what the leader has failed of.
    """
    from trainkit.fit.batched import LeftAloneError, fit_batch

    leader, failed = companions[0].about["leader"], False
    recorders = [Recorder(folder_of(workdir, trial), one) for trial, one in enumerate(companions, 1)]

    def send(trial: int, event: Event) -> None:
        nonlocal failed
        if event["type"] == "resolved":
            event = {**event, "leader": leader}
        if trial == 0:
            failed = failed or event["type"] == "failed"
            on_event(event)
        else:
            control.beat()
            recorders[trial - 1].tell(event)

    along = Along(control, lambda: failed)
    specs = [spec, *(one.spec for one in companions)]
    controls: list[Control | Along] = [control, *(along for _ in companions)]
    first, *others = fit_batch(specs, data, on_event=send, control=controls, workdir=workdir, when="together")
    for recorder, one, result in zip(recorders, companions, others, strict=True):
        why = repr(result) if isinstance(result, Exception) else result.outcome
        recorder.close(whole=why == "finished")
        if why != "finished" and not isinstance(first, LeftAloneError):
            on_event({"type": "log", "level": "warning", "message": f"{one.job_id} has to train alone: {why}"})
    if isinstance(first, LeftAloneError):
        on_event({"type": "log", "level": "info", "message": f"{first}: {len(others)} others are left to themselves"})
        return None
    if isinstance(first, Exception):
        raise first
    return first


def take_over(package: Package, workdir: Path, on_event: OnEvent) -> bool:
    """Tell what the package holds, as it was told when it happened, its files in `workdir`; False if it is of no use."""
    folder = workdir / "package"
    leader = package.about["leader"]
    try:
        shutil.copytree(package.folder, folder)
        why_not = _why_not(folder, package.about)
    except (OSError, ValueError, KeyError) as error:
        why_not = f"it cannot be read ({type(error).__name__})"
    if why_not is not None:
        message = f"it was trained with {leader}, but what that left is of no use, {why_not}: training anew"
        on_event({"type": "log", "level": "warning", "message": message})
        shutil.rmtree(folder, ignore_errors=True)
        return False
    on_event({"type": "log", "level": "info", "message": f"trained with {leader} as one model: taking over"})
    with (folder / EVENTS).open(encoding="utf-8") as file:
        for line in file:
            on_event(with_paths(json.loads(line), lambda path: str((folder / path).absolute())))
    return True


def with_paths(event: Event, change: Callable[[str], str]) -> Event:
    """The event with the files that it names named otherwise."""
    if event["type"] == "checkpoint":
        return {**event, "path": change(event["path"])}
    if event["type"] == "finished":
        files = {name: change(path) for name, path in event["files"].items()}
        return {**event, "artifact": change(event["artifact"]), "files": files}
    return event


def versions() -> dict[str, str]:
    """What, besides spec and data, decides the results."""
    from trainkit.fit.device import versions

    return versions()


def _why_not(folder: Path, about: dict[str, Any]) -> str | None:
    """What keeps a package from being taken over. Raises OSError, ValueError and KeyError for one that is damaged."""
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    expected = {**about, "versions": versions()}
    for name, value in expected.items():
        if manifest[name] != value:
            return f"its {name} is another one now"
    there = {path.relative_to(folder).as_posix(): path for path in _files(folder)}
    if there.keys() - {MANIFEST} != manifest["files"].keys():
        return "files of it are missing"
    for name, digest in manifest["files"].items():
        if sha256_of(there[name]) != digest:
            return f"{name} is damaged"
    return None


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
