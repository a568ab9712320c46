"""Faults of the check of data end as the catalogue says: the same promise as for jobs."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import trainkit.data
from service.datasets.tables import DatasetVersion
from service.deletion import service as deletion
from tests.support.worker_context import Place, copied_place
from trainkit.spec.failures import FAILURES
from worker import intake

BODY = b"a,label\n" + b"1,x\n2,y\n" * 30


def burn(*_: Any, **__: Any) -> None:
    while True:
        pass


def die_by(number: int) -> Callable[..., None]:
    return lambda *_, **__: os.kill(os.getpid(), number)


def grow(*_: Any, **__: Any) -> None:
    bytearray(1 << 50)


@pytest.fixture
def place(migrated_sqlite: Path, tmp_path: Path) -> Place:
    return copied_place(migrated_sqlite, tmp_path)


@pytest.mark.parametrize(
    ("prepare", "deaths", "code", "named"),
    [
        (burn, 1, "too_slow", "1 s of processor time"),
        (grow, 1, "intake_died", "more memory than a check may use"),
        (die_by(signal.SIGKILL), 3, "intake_died", "3 times"),
        (die_by(signal.SIGSEGV), 3, "intake_died", "3 times"),
    ],
)
def test_a_reader_that_fails(
    place: Place, monkeypatch: pytest.MonkeyPatch, prepare: Callable[..., None], deaths: int, code: str, named: str
) -> None:
    monkeypatch.setattr(trainkit.data, "prepare", prepare)
    place.context = replace(place.context, settings=replace(place.context.settings, reader_cpu_seconds=1))
    dataset = place.upload(BODY, filename="t.csv")
    job = place.submit(dataset)
    for _ in range(deaths):
        assert intake.claim_and_check(place.context)
    assert not intake.claim_and_check(place.context)
    with place.context.sessions() as session:
        row = session.get_one(DatasetVersion, dataset)
    assert row.error is not None
    known = FAILURES[code]
    assert (row.state, row.error["code"], row.error["layer"]) == ("invalid", code, known.layer)
    assert named in row.error["message"]
    waited = place.job(job).error or {}
    assert (waited["code"], waited["evidence"]["error"]["code"]) == ("invalid_dataset", code)


def test_data_deleted_under_the_record_of_a_job(place: Place) -> None:
    dataset = place.upload(BODY, filename="t.csv", target="label")
    job = place.submit(dataset)
    with place.service.sessions.begin() as session:
        deletion.delete_dataset(session, place.service, place.who, dataset, force=True)
    with place.context.sessions() as session:
        row = session.get_one(DatasetVersion, dataset)
    assert row.error is not None
    assert (row.state, row.error["code"], row.error["layer"]) == ("invalid", "deleted", "data")
    assert (place.job(job).state, place.job(job).error) == ("cancelled", None)
    assert not intake.claim_and_check(place.context)
