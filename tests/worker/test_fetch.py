"""A registered file is copied by a data worker, and then checked like any upload."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import update

from service.database import db_now
from service.datasets import intake as rows
from service.datasets.service import DatasetMetadata, register_source
from service.datasets.tables import DatasetVersion
from service.leases import StaleFence
from tests.support.worker_context import Place, make_place
from worker import fetch, intake, shutdown


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shared = tmp_path / "shared"
    shared.mkdir()
    lines = ["a,b,label", *(f"{n % 7},{n % 5},{'yes' if n % 7 > 3 else 'no'}" for n in range(120))]
    (shared / "table.csv").write_text("\n".join(lines))
    return shared


@pytest.fixture
def place(migrated_url: str, tmp_path: Path, folder: Path) -> Place:
    base = make_place(migrated_url, tmp_path)
    settings = replace(base.context.settings, file_roots=(folder,))
    return Place(replace(base.context, settings=settings), replace(base.service, settings=settings), base.who)


def registered(place: Place, folder: Path) -> str:
    return register_source(
        place.service, place.who, f"file://{folder}/table.csv", DatasetMetadata("", target="label")
    ).id


def row(place: Place, identifier: str) -> DatasetVersion:
    with place.context.sessions() as session:
        return session.get_one(DatasetVersion, identifier)


def parts(place: Place) -> list[Path]:
    return list((place.context.storage.root / "incoming").glob("*"))


def test_a_file_becomes_a_ready_dataset(place: Place, folder: Path) -> None:
    first, second = registered(place, folder), registered(place, folder)
    while intake.claim_and_check(place.context):
        pass
    for identifier, version in ((first, 1), (second, 2)):
        dataset = row(place, identifier)
        assert (dataset.state, dataset.version, dataset.samples, dataset.progress) == ("ready", version, 120, None)
    blobs = [path for path in (place.context.storage.root / "blobs").rglob("*") if path.is_file()]
    assert [path.read_bytes() for path in blobs] == [(folder / "table.csv").read_bytes()]
    assert parts(place) == []


def test_a_file_that_has_gone_or_moved_out_says_so(place: Place, folder: Path, tmp_path: Path) -> None:
    gone = registered(place, folder)
    (folder / "table.csv").rename(tmp_path / "elsewhere.csv")
    assert intake.claim_and_check(place.context)
    (folder / "table.csv").write_text("x")
    moved = registered(place, folder)
    (folder / "table.csv").unlink()
    (folder / "table.csv").symlink_to(tmp_path / "elsewhere.csv")
    assert intake.claim_and_check(place.context)
    for identifier, code in ((gone, "file_unreadable"), (moved, "file_not_allowed")):
        dataset = row(place, identifier)
        assert (dataset.state, (dataset.error or {})["code"]) == ("invalid", code)
    assert (parts(place), intake.claim_and_check(place.context)) == ([], False)


def test_a_stopping_worker_lets_go_and_the_next_begins_at_once(
    place: Place, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identifier = registered(place, folder)
    monkeypatch.setattr(shutdown, "requested", lambda: True)
    slow = fetch.open_source

    def waits(uri: str, roots: tuple[Path, ...]) -> object:
        time.sleep(0.3)
        return slow(uri, roots)

    monkeypatch.setattr(fetch, "open_source", waits)
    assert intake.claim_and_check(place.context)
    assert (row(place, identifier).state, parts(place)) == ("uploading", [])
    monkeypatch.undo()
    assert intake.claim_and_check(place.context)
    assert row(place, identifier).state == "validating"


def test_a_fetch_whose_lease_has_gone_writes_nothing(place: Place, folder: Path) -> None:
    identifier = registered(place, folder)
    with place.context.sessions.begin() as session:
        claimed = rows.claim_source(session, "dead", -1)
    assert claimed is not None
    assert intake.claim_and_check(place.context)
    with pytest.raises(StaleFence), place.context.sessions.begin() as session:
        rows.not_fetched(session, claimed.claim, {"code": "x"})
    assert (row(place, identifier).state, row(place, identifier).fence) == ("validating", claimed.claim.fence + 1)


def test_a_registration_that_another_has_taken_is_let_go(place: Place, folder: Path) -> None:
    identifier = registered(place, folder)
    with place.context.sessions.begin() as session:
        claimed = rows.claim_source(session, "w", 30)
        assert claimed is not None
        session.execute(
            update(DatasetVersion).where(DatasetVersion.id == identifier).values(fence=9, updated_at=db_now())
        )
    with pytest.raises(StaleFence):
        fetch.Fetch(place.context, claimed, time.monotonic()).run()
    assert (row(place, identifier).state, parts(place)) == ("uploading", [])
