"""A record as a file: how a run that has ended is handed to the process that investigates it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from trainkit.diagnose.attainable import Attainable
from trainkit.diagnose.record import Record, Series
from trainkit.spec import DatasetFacts, JobSpec

PLAIN = ("report", "evaluation", "state", "stop_reason", "document")
"""Fields that are JSON already."""


def as_json(record: Record) -> dict[str, Any]:
    """Return the record as plain data; values of series that are not finite stay, as `json` writes them (NaN, Infinity)."""
    columns = {
        name: {"step": series.step.tolist(), "epoch": series.epoch.tolist(), "value": series.value.tolist()}
        for name, series in record.series.items()
    }
    plain = {name: getattr(record, name) for name in PLAIN}
    spec, facts = record.spec.model_dump(mode="json"), record.facts.model_dump(mode="json")
    attainable = None if record.attainable is None else record.attainable.as_dict()
    return {"spec": spec, "facts": facts, "series": columns, "attainable": attainable, **plain}


def from_json(document: dict[str, Any]) -> Record:
    """Return the record that `as_json` gave."""
    series = {
        name: Series(
            np.asarray(columns["step"], np.int64),
            np.asarray(columns["epoch"], np.int64),
            np.asarray(columns["value"], np.float64),
        )
        for name, columns in document["series"].items()
    }
    plain = {name: document[name] for name in PLAIN}
    spec, facts = JobSpec.model_validate(document["spec"]), DatasetFacts.model_validate(document["facts"])
    attainable = document["attainable"] and Attainable.from_dict(document["attainable"])
    return Record(spec=spec, facts=facts, series=series, attainable=attainable, **plain)


def save(path: Path, document: dict[str, Any]) -> None:
    """Write a document with a record in it."""
    path.write_text(json.dumps(document, separators=(",", ":")), encoding="utf-8")
