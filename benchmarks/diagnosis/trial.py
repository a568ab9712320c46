"""One run: trained with `trainkit.fit`, recorded as in the service, and kept in a cache folder."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import trainkit as tk
from benchmarks.diagnosis.data import BenchmarkData, benchmark_data
from trainkit.diagnose.record import Record, Series
from trainkit.fit.fit_and_diagnose import fit_and_diagnose
from trainkit.spec import JobSpec, resolve

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache/diagnosis"


@dataclass(frozen=True, slots=True)
class Trial:
    """The record of a run, its accuracy or R^2 on samples set aside, its training time, and whether it was cached."""

    record: Record
    aside: float | None
    seconds: float
    cached: bool


@cache
def library_hash() -> str:
    """Return the hash of all code that a run depends on: the library without its diagnosis, and the recipes."""
    files = [*sorted((ROOT / "trainkit").rglob("*.py")), Path(__file__).with_name("data.py")]
    contents = [file.read_bytes() for file in files if file.parent.name != "diagnose"]
    return hashlib.sha256(b"".join(contents)).hexdigest()


def trial(recipe: Mapping[str, Any], document: Mapping[str, Any], *, fresh: bool = False) -> Trial:
    """Train a run, or load it from the cache if the same code has trained the same document before."""
    key = json.dumps([library_hash(), recipe, document], sort_keys=True)
    file = CACHE / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
    data = benchmark_data(recipe)
    cached = file.exists() and not fresh
    if not cached:
        CACHE.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part")
        part.write_text(json.dumps(_train(data, document)))
        part.rename(file)
    stored = json.loads(file.read_text())
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
    return Trial(record, stored["aside"], stored["seconds"], cached)


def _train(data: BenchmarkData, document: Mapping[str, Any]) -> dict[str, Any]:
    run = fit_and_diagnose(document, data.dataset)
    if run.error is not None and run.error["code"] != "loss_not_finite":
        raise RuntimeError(f"{run.error['code']}: {run.error['message']}")
    series = run.record.series.items()
    return {
        "series": {name: [one.step.tolist(), one.epoch.tolist(), one.value.tolist()] for name, one in series},
        "report": run.record.report,
        "evaluation": run.record.evaluation,
        "state": run.record.state,
        "stop_reason": run.record.stop_reason,
        "aside": None if run.result is None else _score(run.result, data),
        "seconds": run.seconds,
    }


def _score(result: tk.FitResult, data: BenchmarkData) -> float | None:
    """Return accuracy or R^2 on the samples set aside."""
    if data.aside is None or result.model is None:
        return None
    x, y = data.aside
    answers = result.model.predict(x)
    if "label" in answers[0]:
        return float(np.mean([answer["label"] == str(truth) for answer, truth in zip(answers, y, strict=True)]))
    error = np.array([answer["value"] for answer in answers]) - y
    return float(1 - np.mean(error**2) / max(float(np.var(y)), math.ulp(1.0)))
