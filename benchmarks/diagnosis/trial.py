"""One run: trained with `trainkit.fit`, recorded as in the service, judged on the samples aside, and kept in a cache."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import trainkit as tk
from benchmarks.diagnosis.planted_data import CaseData, case_data
from trainkit.diagnose.attainable import Attainable, attainable_key
from trainkit.diagnose.record import Record, Series
from trainkit.fit.attainable import attainable
from trainkit.fit.fit_and_diagnose import fit_and_diagnose
from trainkit.spec import JobSpec, resolve

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache/diagnosis"
DATA_CODE = ("datasets.py", "packages.py", "planted_data.py", "r_data.py", "trial.py")
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Aside:
    """The kept weights on the samples aside, sample by sample.

    Classification: `score` is 1 where the answer is right, `loss` -ln p of the true class. Regression: `score` is
    1 - (error / deviation)^2, so that its mean is R^2, and `loss` (error / deviation)^2. `targets` are the true classes;
    empty for regression.
    """

    score: Floats
    loss: Floats
    targets: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Trial:
    """The record of a run, its answers on the samples aside, its training time, and whether it was cached."""

    record: Record
    aside: Aside
    seconds: float
    cached: bool


NOT_OF_A_RUN = ("diagnose", "plots", "references")
REFERENCES = ("attainable.py", "autopilot.py", "investigate.py")
"""Folders, and files of `trainkit/fit`, that no run depends on."""


@cache
def library_hash() -> str:
    """Return the hash of all code that a run depends on: the library without its diagnosis, and the data's making."""
    library = [
        file
        for file in sorted((ROOT / "trainkit").rglob("*.py"))
        if not set(file.relative_to(ROOT).parts) & {*NOT_OF_A_RUN} and file.name not in REFERENCES
    ]
    return _hash([*library, *(Path(__file__).with_name(name) for name in DATA_CODE)])


@cache
def references_hash() -> str:
    """Return the hash of the code that measures what is attainable."""
    folder = ROOT / "trainkit/fit"
    return _hash([*sorted((folder / "references").rglob("*.py")), folder / "attainable.py"])


def _hash(files: Iterable[Path]) -> str:
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def trial(recipe: Mapping[str, Any], document: Mapping[str, Any], *, fresh: bool = False) -> Trial:
    """Train a run, or load it from the cache if the same code has trained the same document before."""
    data = data_of(recipe)
    cached = True

    def train() -> dict[str, Any]:
        nonlocal cached
        cached = False
        return _train(data, document)

    stored = cached_json(["trial", recipe, document], train, fresh=fresh)
    spec = JobSpec.model_validate(document)
    series = {
        name: Series(np.array(step, np.int64), np.array(epoch, np.int64), np.array(value, np.float64))
        for name, (step, epoch, value) in stored["series"].items()
    }
    record = Record(
        spec=resolve(spec, data.dataset.facts).spec,
        facts=data.dataset.facts,
        series=series,
        report=stored["report"],
        evaluation=stored["evaluation"],
        state=stored["state"],
        stop_reason=stored["stop_reason"],
        document=document,
    )
    targets = data.aside_targets if data.aside_targets.dtype.kind == "i" else np.empty(0, np.int64)
    aside = Aside(np.array(stored["score"]), np.array(stored["loss"]), targets)
    return Trial(record, aside, stored["seconds"], cached)


def cached_json(key: Any, compute: Callable[[], Any], *, fresh: bool = False) -> Any:
    """Return what `compute` returns, from the cache where the same code has computed the same key before."""
    text = json.dumps([library_hash(), key], sort_keys=True)
    file = CACHE / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"
    if fresh or not file.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(f".{os.getpid()}.part")
        part.write_text(json.dumps(compute()))
        part.rename(file)
    return json.loads(file.read_text())


def data_of(recipe: Mapping[str, Any]) -> CaseData:
    """Return the data of a recipe; the last few are kept."""
    return _data_of(json.dumps(recipe, sort_keys=True))


@lru_cache(maxsize=4)
def _data_of(recipe: str) -> CaseData:
    return case_data(json.loads(recipe))


def with_attainable(recipe: Mapping[str, Any], record: Record) -> Record:
    """Return the record of a run that has ended with what references reach on its data and split, as the service has it."""
    if record.state != "succeeded":
        return record
    data = data_of(recipe).dataset
    key = ["attainable", references_hash(), recipe, attainable_key(record.spec)]

    def measure() -> dict[str, Any] | None:
        found = attainable(resolve(record.document or {}, data.facts), data)
        return None if found is None else found.as_dict()

    stored = cached_json(key, measure)
    return record if stored is None else replace(record, attainable=Attainable.from_dict(stored))


def _train(data: CaseData, document: Mapping[str, Any]) -> dict[str, Any]:
    run = fit_and_diagnose(document, data.dataset)
    if run.error is not None and run.error["code"] != "loss_not_finite":
        raise RuntimeError(f"{run.error['code']}: {run.error['message']}")
    series = {name: one for name, one in run.record.series.items() if not name.startswith("system_")}
    score, loss = _answers(run.result, data)
    return {
        "series": {name: [one.step.tolist(), one.epoch.tolist(), one.value.tolist()] for name, one in series.items()},
        "report": run.record.report,
        "evaluation": run.record.evaluation,
        "state": run.record.state,
        "stop_reason": run.record.stop_reason,
        "score": np.round(score, 5).tolist(),
        "loss": np.round(loss, 5).tolist(),
        "seconds": run.seconds,
    }


def _answers(result: tk.FitResult | None, data: CaseData) -> tuple[Floats, Floats]:
    """Return `score` and `loss` of each sample aside; a run without a model answers as a constant does."""
    y = data.aside_targets
    if y.dtype.kind == "f":
        spread, centre = float(y.std()) or 1.0, float(y.mean())
        given = np.full(len(y), centre) if result is None or result.model is None else _values(result.model, data)
        error = np.where(np.isfinite(given), (given - y) / spread, 1e3)
        return 1 - np.minimum(error**2, 1e6), np.minimum(error**2, 1e6)
    if result is None or result.model is None:
        share = data.train_share_of_class
        return (y == int(share.argmax())).astype(float), -np.log(np.maximum(share[y], 1e-6))
    answers = result.model.predict(data.aside_inputs)
    right = np.array([answer["label"] == str(truth) for answer, truth in zip(answers, y, strict=True)])
    given = np.array([answer["probabilities"].get(str(truth), 0.0) for answer, truth in zip(answers, y, strict=True)])
    return right.astype(float), -np.log(np.maximum(np.nan_to_num(given), 1e-6))


def _values(model: Any, data: CaseData) -> Floats:
    return np.array([answer["value"] for answer in model.predict(data.aside_inputs)], np.float64)
