"""Uploads become ready or invalid datasets; a reader that dies is tried again, but not for ever."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
from place import Place

from service.datasets.tables import Dataset
from trainkit.data import Dataset as PreparedDataset
from worker import endings, intake, shutdown


def dataset(place: Place, identifier: str) -> Dataset:
    with place.context.sessions() as session:
        return session.get_one(Dataset, identifier)


def test_a_table_becomes_ready_in_its_prepared_form(place: Place) -> None:
    row = dataset(place, place.table())
    assert (row.state, row.kind, row.samples) == ("ready", "table", 120)
    assert row.prepared_key is not None
    assert PreparedDataset.load(place.context.storage.local_path(row.prepared_key)).facts.samples == 120
    assert list(place.context.settings.scratch.iterdir()) == []


def test_bytes_that_are_no_dataset_are_refused_with_a_reason(place: Place) -> None:
    identifier = place.upload(b"PK\x03\x04 but not really", filename="images.zip")
    assert intake.claim_and_check(place.context)
    row = dataset(place, identifier)
    assert row.state == "invalid"
    assert row.error is not None
    assert row.error["message"]
    assert row.error["layer"] == "data"


def test_jobs_that_waited_are_queued(place: Place) -> None:
    identifier = place.upload(b"a,label\n" + b"1,x\n2,y\n3,x\n4,y\n" * 20, filename="t.csv", target="label")
    job = place.submit(identifier)
    assert place.job(job).state == "validating"
    assert intake.claim_and_check(place.context)
    assert place.job(job).state == "queued"


def test_nothing_to_do_is_said(place: Place) -> None:
    assert not intake.claim_and_check(place.context)


def test_a_file_that_kills_its_reader_is_given_up_after_three_deaths(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(intake, "read", die)
    identifier = place.upload(b"a,b\n1,2\n")
    for deaths in (1, 2, 3):
        assert dataset(place, identifier).state == "validating"
        assert intake.claim_and_check(place.context)
        assert dataset(place, identifier).interruptions == min(deaths, 2)
    row = dataset(place, identifier)
    assert row.state == "invalid"
    assert row.error is not None
    assert row.error["code"] == "intake_died"


def test_a_reader_that_wants_too_much_memory_is_stopped(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    import trainkit.data

    monkeypatch.setattr(endings, "memory_limit", lambda: 1 << 30)
    monkeypatch.setattr(trainkit.data, "prepare", lambda *_args, **_options: bytearray(1 << 40))
    identifier = place.upload(b"a,b\n1,2\n")
    assert intake.claim_and_check(place.context)
    row = dataset(place, identifier)
    assert row.error is not None
    assert row.error["code"] == "out_of_memory"


def test_a_stopping_worker_lets_the_dataset_go_at_once(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    identifier = place.table()
    second = place.upload(b"a,label\n1,x\n2,y\n" * 30, "other", "t.csv")
    monkeypatch.setattr(shutdown, "asked", lambda: True)
    intake.claim_and_check(place.context)
    row = dataset(place, second)
    assert row.interruptions == 0
    monkeypatch.undo()
    while intake.claim_and_check(place.context):
        pass
    assert dataset(place, second).state in ("ready", "invalid")
    assert dataset(place, identifier).state == "ready"


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("a.csv", ".csv"), ("a.b.TAR.GZ", ".tar.gz"), ("../../etc/passwd", ""), ("x.zip\n", ""), (None, "")],
)
def test_of_a_client_s_file_name_only_the_suffix_is_used(name: str | None, suffix: str) -> None:
    assert intake.suffix_of(name) == suffix
