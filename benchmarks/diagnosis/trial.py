"""One run: trained with `trainkit.fit`, recorded as the service records it, and kept in a cache folder."""

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
from benchmarks.diagnosis.data import Made, made
from trainkit.diagnose.record import Record, Series
from trainkit.fit.fit_and_diagnose import fit_and_diagnose
from trainkit.spec import JobSpec, resolve

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache/diagnosis"


@dataclass(frozen=True, slots=True)
class Trial:
    """A run's record, how good it is on samples set aside (accuracy or R^2), and how it was come by."""

    record: Record
    aside: float | None
    seconds: float
    cached: bool


@cache
def edition() -> str:
    """Of everything that a run's numbers come from: the library but for its diagnosis, and the recipes."""
    files = [*sorted((ROOT / "trainkit").rglob("*.py")), Path(__file__).with_name("data.py")]
    told = [file.read_bytes() for file in files if file.parent.name != "diagnose"]
    return hashlib.sha256(b"".join(told)).hexdigest()


def trial(recipe: Mapping[str, Any], document: Mapping[str, Any], *, fresh: bool = False) -> Trial:
    """Train it, or take it from the cache where the same library has trained the same before."""
    named = json.dumps([edition(), recipe, document], sort_keys=True)
    file = CACHE / f"{hashlib.sha256(named.encode()).hexdigest()[:32]}.json"
    data = made(recipe)
    cached = file.exists() and not fresh
    if not cached:
        CACHE.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part")
        part.write_text(json.dumps(_trained(data, document)))
        part.rename(file)
    told = json.loads(file.read_text())
    asked = JobSpec.model_validate(document)
    series = {
        name: Series(np.array(step, np.int64), np.array(epoch, np.int64), np.array(value, np.float64))
        for name, (step, epoch, value) in told["series"].items()
    }
    record = Record(
        spec=resolve(asked, data.dataset.facts).spec,
        facts=data.dataset.facts,
        series=series,
        report=told["report"],
        evaluation=told["evaluation"],
        state=told["state"],
        stop_reason=told["stop_reason"],
        document=document,
    )
    return Trial(record, told["aside"], told["seconds"], cached)


def _trained(data: Made, document: Mapping[str, Any]) -> dict[str, Any]:
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


def _score(result: tk.FitResult, data: Made) -> float | None:
    """Accuracy or R^2 on what was set aside."""
    if data.aside is None or result.model is None:
        return None
    x, y = data.aside
    answers = result.model.predict(x)
    if "label" in answers[0]:
        return float(np.mean([answer["label"] == str(truth) for answer, truth in zip(answers, y, strict=True)]))
    error = np.array([answer["value"] for answer in answers]) - y
    return float(1 - np.mean(error**2) / max(float(np.var(y)), math.ulp(1.0)))
