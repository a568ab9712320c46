"""Uploads become ready or invalid datasets; a reader that dies is tried again, but not for ever."""

from __future__ import annotations

import errno
import io
import os
import signal
import tarfile
import time
import zipfile
from typing import Any

import numpy as np
import openpyxl
import pytest
from PIL import Image

from service.datasets import intake as claims
from service.datasets.tables import DatasetVersion
from service.deletion.service import delete_dataset
from service.leases import StaleFence
from tests.support import hostile_files
from tests.support.worker_context import Place
from trainkit.data import Dataset as PreparedDataset
from worker import exit_errors, intake, shutdown


def dataset(place: Place, identifier: str) -> DatasetVersion:
    with place.context.sessions() as session:
        return session.get_one(DatasetVersion, identifier)


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


def test_a_workbook_becomes_ready_and_says_its_sheet(place: Place) -> None:
    book = openpyxl.Workbook()
    book.active.title = "May"
    for row in (["x", "label"], *([n, "ab"[n % 2]] for n in range(40))):
        book.active.append(row)
    book.create_sheet("June")
    buffer = io.BytesIO()
    book.save(buffer)
    identifier = place.upload(buffer.getvalue(), filename="sales.xlsx", target="label")
    assert intake.claim_and_check(place.context)
    row = dataset(place, identifier)
    assert (row.state, row.kind, row.samples) == ("ready", "table", 40), row.error
    assert row.report is not None
    (found,) = [found for found in row.report["findings"] if found["code"] == "sheet"]
    assert found["message"].startswith('the sheet "May" was read; the workbook\'s other sheets are "June"')


@pytest.mark.parametrize(("body", "noun"), [(b"%PDF-1.7 x", "a PDF document"), (b"<html></html>", "an HTML page")])
def test_a_wrong_file_is_named(place: Place, body: bytes, noun: str) -> None:
    identifier = place.upload(body, filename="table.csv")
    assert intake.claim_and_check(place.context)
    row = dataset(place, identifier)
    assert row.state == "invalid"
    assert row.error is not None
    assert row.error["code"] == "wrong_file_type"
    assert noun in row.error["message"]


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

    monkeypatch.setattr(exit_errors, "memory_limit", lambda: 1 << 30)
    monkeypatch.setattr(trainkit.data, "prepare", lambda *_args, **_options: bytearray(1 << 40))
    identifier = place.upload(b"a,b\n1,2\n")
    assert intake.claim_and_check(place.context)
    row = dataset(place, identifier)
    assert row.error is not None
    assert row.error["code"] == "intake_died"
    assert "memory" in row.error["message"]


def test_a_stopping_worker_lets_the_dataset_go_at_once(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    identifier = place.table()
    second = place.upload(b"a,label\n1,x\n2,y\n" * 30, "other", "t.csv")
    monkeypatch.setattr(shutdown, "requested", lambda: True)
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


@pytest.mark.parametrize(
    ("body", "filename", "code", "named"),
    [
        (lambda: hostile_files.zip_with("../../escaped.png"), "x.zip", "unsafe_name", "escaped.png"),
        (lambda: hostile_files.zipped({"a/0.png": bytes(40 << 20)}), "x.zip", "bomb", "a/0.png"),
        (
            lambda: hostile_files.tarred(
                {**hostile_files.good(), "l": hostile_files.special("a/l.png", tarfile.SYMTYPE)}
            ),
            "x.tar",
            "link",
            "a/l.png",
        ),
        (lambda: hostile_files.npz(X=np.array([[1, None]], object)), "x.npz", "pickle", "X"),
        (lambda: b"x,y\n1,2\n1,2,3\n", "x.csv", "bad_row", "line 3"),
        (lambda: hostile_files.mnist(images=b"\0\0\x08\x03"), "x.zip", "truncated", "train-images"),
        (lambda: b"PAR1" + bytes(90), "x.parquet", "damaged_parquet", "upload.parquet"),
    ],
)
def test_hostile_uploads_are_refused_at_the_first_try(
    body: Any, filename: str, code: str, named: str, place: Place
) -> None:
    identifier = place.upload(body(), filename=filename)
    assert intake.claim_and_check(place.context)
    row = dataset(place, identifier)
    assert (row.state, row.interruptions, row.fence) == ("invalid", 0, 1)
    assert row.error is not None
    assert row.error["code"] == code
    assert named in row.error["message"]
    assert not intake.claim_and_check(place.context)
    assert list(place.context.settings.scratch.iterdir()) == []


def test_an_image_that_kills_its_decoder_is_named_and_the_rest_is_ready(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainkit.data import image_loading

    original = image_loading.decode

    def decode(data: bytes) -> Any:
        if data.endswith(b"POISON"):
            os.kill(os.getpid(), signal.SIGKILL)
        return original(data)

    monkeypatch.setattr(image_loading, "decode", decode)
    identifier = place.upload(hostile_files.among(hostile_files.png() + b"POISON")(), filename="x.zip")
    assert intake.claim_and_check(place.context)
    row = dataset(place, identifier)
    assert (row.state, row.interruptions, row.samples) == ("ready", 0, 30)
    assert row.report is not None
    assert row.report["unreadable"][0]["where"] == "a/bad.png"
    assert "SIGKILL" in row.report["unreadable"][0]["reason"]


def slow_prepare(done: Any) -> Any:
    """A reader that tells its progress and, while `done` says so, does not end."""
    import trainkit.data

    original = trainkit.data.prepare

    def prepare(*arguments: Any, progress: Any, **options: Any) -> Any:
        for samples in range(1, 2000):
            if done():
                break
            progress(samples)
            time.sleep(0.05)
        return original(*arguments, progress=progress, **options)

    return prepare


def test_deleting_a_dataset_stops_its_check(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    import trainkit.data

    monkeypatch.setattr(trainkit.data, "prepare", slow_prepare(lambda: False))
    identifier = place.upload(b"a,b\n1,2\n")
    shown: list[Any] = []
    show = intake.Intake._publish_progress

    def show_then_delete(self: intake.Intake) -> None:
        show(self)
        shown.append(dataset(place, identifier).progress)
        with place.service.sessions.begin() as session:
            delete_dataset(session, place.service, place.who, identifier, force=True)

    monkeypatch.setattr(intake.Intake, "_publish_progress", show_then_delete)
    begun = time.monotonic()
    assert intake.claim_and_check(place.context)
    assert time.monotonic() - begun < 60  # the reader alone would go on for 100 s
    assert shown[0]["samples"] > 0
    assert list(place.context.settings.scratch.iterdir()) == []
    assert not intake.claim_and_check(place.context)


def test_a_check_whose_worker_died_is_run_again_under_a_new_fence(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    identifier = place.upload(hostile_files.zipped(hostile_files.good()), filename="x.zip")
    with place.context.sessions.begin() as session:
        dead = claims.claim(session, "dead worker", 0.0)  # a lease of no length: it has run out already
    assert dead is not None
    assert intake.claim_and_check(place.context)
    row = dataset(place, identifier)
    assert (row.state, row.fence, row.samples) == ("ready", dead.claim.fence + 1, 30)
    with place.context.sessions.begin() as session, pytest.raises(StaleFence):
        claims.renew(session, dead.claim, 30.0)


def images(count: int = 40) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as bundle:
        for n in range(count):
            picture = io.BytesIO()
            Image.new("L", (32, 32), n).save(picture, "PNG")
            bundle.writestr(f"{'ab'[n % 2]}/{n}.png", picture.getvalue())
    return buffer.getvalue()


@pytest.mark.parametrize("when", ["before", "while"])
def test_a_full_disk_is_named_at_once(place: Place, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    if when == "before":
        free = os.statvfs("/")
        few = os.statvfs_result((free.f_bsize, 1, *free[2:4], 3, *free[5:]))
        monkeypatch.setattr(os, "fstatvfs", lambda _: few)
    else:

        def full(*_: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "pwrite", full)
    identifier = place.upload(images(), filename="images.zip")
    assert intake.claim_and_check(place.context)
    row = dataset(place, identifier)
    assert row.error is not None
    assert (row.state, row.error["code"], row.error["layer"], row.interruptions) == (
        "invalid",
        "disk_full",
        "platform",
        0,
    )
    assert "No space left on device" in row.error["message"]
    assert ("40 images of 32 x 32" in row.error["message"]) == (when == "before")
    assert list(place.context.settings.scratch.iterdir()) == []
