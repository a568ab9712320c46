"""What is true of a case, by training it and its twin: kept as one file a case, so that rules are judged again in seconds."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from benchmarks.diagnosis.case import Case
from benchmarks.diagnosis.effects import has_effect
from benchmarks.diagnosis.reference import Reference, reference_gain
from benchmarks.diagnosis.trial import library_hash, references_hash, trial, with_attainable
from trainkit.diagnose import record_file
from trainkit.diagnose.record import Record
from trainkit.diagnose.verdicts import Code

Truth = Literal["faulty", "sound", "no effect", "unsettled"]


@dataclass(frozen=True, slots=True)
class Examination:
    """A trained case: the records of the run and of its twin (None for a sound case, or left out), what the faults do.

    `effective`: the planted codes that have an effect; `planted`: each fault, its strength and its measured effect.
    `code`: hash of the library that trained it.
    """

    run: Record
    twin: Record | None
    truth: Truth
    effective: list[Code]
    planted: list[dict[str, Any]]
    reference: dict[str, Any] | None
    seconds: float
    cached: bool
    code: str


def examination(case: Case, *, fresh: bool = False, records: Path | None = None, twins: bool = True) -> Examination:
    """Return what is true of a case; from `records` where that folder has it, whatever library trained it then.

    `twins` False: what is attainable for the twin is not measured, and the twin is left out.
    """
    file = None if records is None else records / f"{case.seed:05}.json"
    if file is not None and not fresh and file.exists():
        stored = json.loads(file.read_text())
        if stored["case"] == _digest(case):
            return _from_dict(stored)
    found = _examine(case, fresh, twins)
    if file is not None:
        _write(file, {"case": _digest(case), **_as_dict(found)})
    return found


def _write(file: Path, content: Mapping[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps(content, separators=(",", ":")))
    part.rename(file)


class InvestigationFile:
    """What an investigation has trained, in a folder of records: a later one goes on from it, by the rules of then.

    `fresh`: what the folder holds is not read.
    """

    def __init__(self, case: Case, seconds: float, records: Path | None, *, fresh: bool = False) -> None:
        self._digest, self._fresh = _digest(case), fresh
        self._file = None if records is None else records / f"{case.seed:05}-{seconds:g}s.json"

    def read(self) -> dict[str, Any] | None:
        """Return the state that was kept; None where there is none of this case."""
        if self._file is None or self._fresh or not self._file.exists():
            return None
        stored: dict[str, Any] = json.loads(self._file.read_text())
        return stored["state"] if stored["case"] == self._digest else None

    def keep(self, state: Mapping[str, Any]) -> None:
        """Keep a state in the place of the last one."""
        if self._file is not None:
            _write(self._file, {"case": self._digest, "state": state})


def _examine(case: Case, fresh: bool, twins: bool) -> Examination:
    run = trial(case.recipe, case.document, fresh=fresh)
    twin = trial(case.sound_recipe, case.sound_document, fresh=fresh) if case.planted else run
    planted, effective = [], []
    for fault in case.planted:
        alone = run if len(case.planted) == 1 else trial(fault.recipe, fault.document, fresh=fresh)
        matters, effect = has_effect(fault.code, alone, twin)
        effective += [fault.code] if matters else []
        shown = {"code": fault.code, "strength": fault.strength, "what": fault.what}
        planted.append({**shown, "effective": matters, "effect": effect.as_dict()})
    reference = None if case.planted else reference_gain(case.recipe, run)
    truth: Truth = "faulty" if effective else "no effect" if planted else _sound_or_not(reference)
    return Examination(
        with_attainable(case.recipe, run.record),
        with_attainable(case.sound_recipe, twin.record) if case.planted and twins else None,
        truth,
        effective,
        planted,
        None if reference is None else reference.as_dict(),
        run.seconds,
        run.cached,
        library_hash() + references_hash(),
    )


def _sound_or_not(reference: Reference | None) -> Truth:
    return "unsettled" if reference is not None and reference.better else "sound"


def _digest(case: Case) -> str:
    """Return a digest of all that is trained for a case."""
    faults = [[fault.code, fault.recipe, fault.document] for fault in case.planted]
    parts = [case.recipe, case.document, case.sound_recipe, case.sound_document, faults]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _as_dict(found: Examination) -> dict[str, Any]:
    plain = {name: getattr(found, name) for name in Examination.__slots__ if name not in ("run", "twin")}
    twin = None if found.twin is None else record_file.as_json(found.twin)
    return {**plain, "run": record_file.as_json(found.run), "twin": twin}


def _from_dict(stored: dict[str, Any]) -> Examination:
    fields = {name: stored[name] for name in Examination.__slots__}
    twin = fields["twin"] and record_file.from_json(fields["twin"])
    found = Examination(**{**fields, "run": record_file.from_json(fields["run"]), "twin": twin})
    return replace(found, cached=True)
