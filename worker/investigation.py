"""The body of an investigation's process: `investigate` in place of `fit`, its events as the supervisor's sink takes them.

The planner's state, with the weights of the variants that helped so far, is the job's checkpoint. It is written after each
variant, or after several that train as one, so that an interrupted investigation goes on with the next one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from trainkit.diagnose import record_file
from trainkit.diagnose.investigation_history import InvestigationBudget
from trainkit.spec.investigation import variant_file
from worker.control import ControlReceiver

Event = dict[str, Any]
OnEvent = Callable[[Event], None]
SPLIT = "variant"
"""Split of the metric rows; their name is that of the variant and of the series: `variant_rate_tenth.val_loss`."""
KEPT_SPLITS = frozenset({"train", "val"})
OF_VARIANT = ("name", "kind", "patch", "cause", "share", "why", "state")
OF_RESULT = ("metrics", "skill", "seconds", "error")
"""Fields of a variant, and of its result, that the job's events show."""
OF_SEVERAL_NETWORKS: Event = {"batched": False, "parameters": 0, "trainable": 0, "phases": [], "resume_exact": True}
"""Fields of a `runtime` event that say nothing of an investigation."""
PROGRESS_SECONDS = 1.0
STOP_REASONS = {"finished": "completed", "stopped": "client_stop"}
"""Outcome of an investigation that concludes -> the job's stop reason."""
MAX_KEPT_MODELS = 3
"""Variants whose trained weights are kept."""
KEPT_CHECKPOINTS = 2
MAX_PACKED_BYTES = 64 * 2**20
"""Of all variants' weights in a checkpoint; where they are larger, those of variants before a resume are not kept."""
STATE, MODELS = "state.json", "variants"
"""Within a checkpoint: the planner's state, and the folder with the variants' models."""


def run(
    source_file: Path,
    section: Mapping[str, Any],
    limit_seconds: float | None,
    data: Any,
    *,
    control: ControlReceiver,
    on_event: OnEvent,
    workdir: Path,
    resume_from: Path | None = None,
    target_data: Any = None,
    source: Any = None,
    runtime: Mapping[str, Any] | None = None,
) -> str:
    """Investigate a job and return the outcome: `finished`, `paused`, `handed_back` or `cancelled`.

    Args:
        source_file: `{document, record, lost}` of the investigated job, as `preflight.find_investigated` gives it.
        section: `investigation` of the spec.
        limit_seconds: the most that it may take, whatever its budget says.
        resume_from: a checkpoint that this function has written.
        data, control, target_data, source, runtime: as of `fit`.
    """
    from trainkit.fit.investigate import investigate

    handed_over = json.loads(source_file.read_bytes())
    record = record_file.from_json(handed_over["record"])
    limits = [seconds for seconds in (section.get("seconds"), limit_seconds) if seconds is not None]
    budget = InvestigationBudget(seconds=min(limits, default=None), jobs=section.get("jobs"))
    log = EventLog(on_event, workdir, budget.seconds, budget.jobs)
    if runtime is not None:
        log.take({"type": "runtime", **runtime})
    state = None if resume_from is None else log.resume(resume_from)
    ended = investigate(
        handed_over["document"],
        data,
        record=record,
        budget=budget,
        state=state,
        on_event=log.take,
        control=control,
        workdir=workdir,
        source=source,
        target_data=target_data,
        runtime=runtime,
        lost=handed_over.get("lost"),
    )
    if ended.outcome not in STOP_REASONS:
        return str(ended.outcome)
    findings = ended.findings.as_dict()
    log.finish(findings, STOP_REASONS[ended.outcome], _keep_models(findings, workdir))
    return "finished"


class EventLog:
    """Turns the events of `investigate` into those of a job: phases, progress of the whole, named series, checkpoints."""

    def __init__(self, on_event: OnEvent, workdir: Path, seconds: float | None, jobs: int | None) -> None:
        self._send = on_event
        self._workdir = workdir
        self._seconds, self._jobs = seconds, jobs
        self._ended = 0
        self._positions = 0
        self._numbers: dict[str, int] = {}
        self._spent = 0.0
        self._begun = time.monotonic()
        self._progress_due = 0.0
        self._samples_per_second = 0.0
        self._has_runtime = False

    def resume(self, path: Path) -> dict[str, Any]:
        """Go on from a checkpoint and return the planner's state. Raises CheckpointError."""
        from trainkit.fit.checkpoint import CheckpointError

        try:
            with zipfile.ZipFile(path) as file:
                checkpoint = json.loads(file.read(STATE))
                file.extractall(self._workdir, [name for name in file.namelist() if name != STATE])
            self._ended, self._spent = checkpoint["variants"], checkpoint["seconds"]
        except (zipfile.BadZipFile, KeyError, ValueError) as error:
            raise CheckpointError(f"checkpoint {path.name} is none of an investigation: {error}") from error
        self._send({"type": "resumed", "step": self._ended, "exact": True, "reason": None})
        state: dict[str, Any] = checkpoint["state"]
        return state

    def take(self, event: Event) -> None:
        """Pass an event on as the job's log has it; others of a variant's training are left out."""
        kind = event["type"]
        if kind == "log":
            self._send({**event, "message": f"{event.get('variant', 'investigation')}: {event['message']}"})
        elif kind == "runtime":
            self._has_runtime = True
            self._send(event)
        elif kind == "variant":
            self._variant(event)
        elif kind == "metrics":
            self._metrics(event)
        elif kind == "progress":
            self._samples_per_second = event["samples_per_second"]
            if time.monotonic() >= self._progress_due:
                self._send_progress()
        elif kind == "investigation_state":
            if not self._has_runtime and event["state"].get("runtime"):
                self.take({"type": "runtime", **OF_SEVERAL_NETWORKS, **event["state"]["runtime"]})
            self._checkpoint(event["state"])

    def finish(self, findings: dict[str, Any], stop_reason: str, files: Mapping[str, Path]) -> None:
        """Send the findings and the files that are kept."""
        self._send({"type": "evaluation", "findings": _without_paths(findings)})
        self._send(
            {
                "type": "finished",
                "stop_reason": stop_reason,
                "best_epoch": None,
                "stopped_epoch": 0,
                "test": {},
                "verdict": findings["verdicts"][0]["code"],
                "artifact": None,
                "files": {name: str(path) for name, path in files.items()},
            }
        )

    def _variant(self, event: Event) -> None:
        name, running = event["name"], event["state"] == "running"
        if running:
            # announced again where it could not train as one with others
            self._numbers.setdefault(name, self._ended + 1 + len(self._numbers))
            self._send({"type": "phase", "phase": f"variant {self._numbers[name]}: {name}"[:200]})
        number = self._numbers[name] if running else self._numbers.pop(name, self._ended + 1)
        self._ended += not running
        self._positions += 1
        result = event.get("result") or {}
        shown = {key: event[key] for key in OF_VARIANT if key in event}
        shown["result"] = {key: result[key] for key in OF_RESULT if key in result} or None
        self._send({"type": "variant", **shown, "number": number, "position": self._positions})
        self._send_progress()

    def _metrics(self, event: Event) -> None:
        name = event["variant"]
        rows = [
            [SPLIT, f"{name}.{split}_{metric}", value] for split, metric, value in event["rows"] if split in KEPT_SPLITS
        ]
        if rows:
            kept = {key: event[key] for key in ("step", "epoch", "at")}
            self._send({"type": "metrics", **kept, "rows": rows})

    def _send_progress(self) -> None:
        """How much of the budget is used: of time or of runs, whichever is nearer to its end; the rest is an estimate."""
        self._progress_due = time.monotonic() + PROGRESS_SECONDS
        spent = self._elapsed
        shares = [self._ended / self._jobs] if self._jobs else []
        shares += [spent / self._seconds] if self._seconds else []
        done = min(1.0, max(shares, default=0.0))
        eta = None if done == 0 else round(spent / done * (1 - done), 3)
        runs = {"epoch": self._ended, "step": self._ended}
        most = self._jobs or self._ended + 1
        limits = {"epochs": most, "steps": most, "samples_per_second": self._samples_per_second}
        self._send({"type": "progress", **runs, **limits, "percent": round(100 * done, 2), "eta_seconds": eta})

    @property
    def _elapsed(self) -> float:
        return self._spent + time.monotonic() - self._begun

    def _checkpoint(self, state: Mapping[str, Any]) -> None:
        """Write a checkpoint under a name of its own, whole or not at all, and keep the one before it."""
        checkpoint = {"state": state, "variants": self._ended, "seconds": round(self._elapsed, 3)}
        path = self._workdir / f"investigation-{self._ended:06}.zip"
        temporary = path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            with zipfile.ZipFile(file, "w") as packed:
                packed.writestr(STATE, json.dumps(checkpoint))
                models = [path for path in sorted((self._workdir / MODELS).rglob("*")) if path.is_file()]
                if sum(model.stat().st_size for model in models) <= MAX_PACKED_BYTES:
                    for model in models:
                        packed.write(model, model.relative_to(self._workdir))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        for old in sorted(self._workdir.glob("investigation-*.zip"))[:-KEPT_CHECKPOINTS]:
            old.unlink()
        self._send(
            {
                "type": "checkpoint",
                "path": str(path),
                "step": self._ended,
                "epoch": 0,
                "bytes": path.stat().st_size,
                "sha256": _sha256(path),
            }
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _keep_models(findings: Mapping[str, Any], workdir: Path) -> dict[str, Path]:
    """Write the weights of the variants that are recommended into one file each, and drop those of all others."""
    from trainkit.fit.models.trained_model import write_single_file

    kept: dict[str, Path] = {}
    for recommended in findings.get("recommendations", ()):
        variant = (recommended.get("measured") or {}).get("variant")
        folder = workdir / MODELS / str(variant)
        if variant is None or len(kept) == MAX_KEPT_MODELS or not (folder / "model.json").is_file():
            continue
        path = workdir / variant_file(variant)
        kept[path.stem] = write_single_file(folder, path)
    shutil.rmtree(workdir / MODELS, ignore_errors=True)
    return kept


def _without_paths(findings: Mapping[str, Any]) -> dict[str, Any]:
    """The findings without the folders of weights, which are this process's own."""

    def cleaned(change: Mapping[str, Any]) -> dict[str, Any]:
        return {**change, "measured": {name: value for name, value in change["measured"].items() if name != "artifact"}}

    changes = {name: [cleaned(one) for one in findings.get(name, ())] for name in ("recommendations", "harmful")}
    return {**findings, **changes}
