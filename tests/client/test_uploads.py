"""Uploads: what is stored is not sent again, and what was cut off goes on, also in another process."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from tests.support.stack import Stack
from tests.support.unreliable_network import Network
from trainkit_client import AsyncClient, Client, DatasetInvalid, Invalid, UploadMismatch
from trainkit_client._sync import uploads
from trainkit_client.archive import zip_folder

CHUNK = 1 << 16


@pytest.fixture(autouse=True)
def chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small ones, so that a small file has many."""
    monkeypatch.setattr(uploads, "CHUNK_BYTES", CHUNK)


def table(path: Path, rows: int = 40_000, seed: int = 0) -> Path:
    """A CSV file of about 20 bytes a row."""
    draw = random.Random(seed)
    lines = [f"{draw.random():.6f},{draw.random():.6f},{draw.choice('ab')}" for _ in range(rows)]
    path.write_text("\n".join(["x,y,label", *lines]) + "\n")
    return path


def test_an_upload_goes_on_in_another_process(service: Stack, tmp_path: Path) -> None:
    path = table(tmp_path / "rows.csv")
    program = (
        "import os, sys; from trainkit_client import Client; from trainkit_client._sync import uploads;"
        f"uploads.CHUNK_BYTES = {CHUNK}; stop = int(sys.argv[2]);"
        "report = lambda stored, total: print(stored, flush=True) or (stop and stored >= stop and os.kill(os.getpid(), 9));"
        "print(Client().datasets.upload(sys.argv[1], 'resumed', target='label', progress=report).sha256)"
    )
    variables = {"TRAINKIT_URL": service.url, "TRAINKIT_KEY": service.key, "XDG_STATE_HOME": str(tmp_path / "state")}

    def upload(stop: int) -> tuple[int, list[str]]:
        command = [sys.executable, "-c", program, str(path), str(stop)]
        done = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout.split()

    code, first = upload(5 * CHUNK)
    assert code == -9
    assert first[-1] == str(5 * CHUNK)
    code, second = upload(0)
    assert code == 0
    assert second[0] == str(5 * CHUNK)  # nothing that was stored is sent again
    assert len(second[-1]) == 64
    assert list((tmp_path / "state" / "trainkit" / "uploads").iterdir()) == []


def test_bytes_that_are_stored_are_not_sent(client: Client, tmp_path: Path) -> None:
    path = table(tmp_path / "once.csv", 5000, seed=1)
    calls: list[list[tuple[int, int]]] = [[], [], []]
    first = client.datasets.upload(path, progress=lambda *sizes: calls[0].append(sizes))
    again = client.datasets.upload(path, progress=lambda *sizes: calls[1].append(sizes))
    renamed = client.datasets.upload(path, "other", target="label", progress=lambda *sizes: calls[2].append(sizes))
    size = path.stat().st_size
    assert [stored for stored, _ in calls[0]] == [*range(0, size, CHUNK), size, size][: len(calls[0])]
    assert calls[1] == calls[2] == [(size, size)]
    assert again.id == first.id
    assert (renamed.name, renamed.sha256, renamed.target) == ("other", first.sha256, "label")
    assert renamed.id != first.id


def test_other_bytes_are_the_next_version(client: Client, tmp_path: Path) -> None:
    one = client.datasets.upload(table(tmp_path / "v.csv", 100, seed=2), "versions")
    two = client.datasets.upload(table(tmp_path / "v.csv", 100, seed=3), "versions")
    assert (one.version, two.version) == (1, 2)
    assert client.datasets.get("versions").id == two.id
    assert client.datasets.get("versions:1").id == one.id
    assert client.datasets.get(one.id[:20] if one.id[:20] != two.id[:20] else one.id).id == one.id


def test_an_upload_that_the_service_has_dropped_begins_anew(client: Client, tmp_path: Path) -> None:
    path = table(tmp_path / "dropped.csv", seed=4)
    reports: list[int] = []

    def report(stored: int, total: int) -> None:
        reports.append(stored)
        if stored == 3 * CHUNK and reports.count(stored) == 1:
            for upload in client.request("GET", "/v1/uploads", params={"name": "dropped"})["data"]:
                client.request("DELETE", f"/v1/uploads/{upload['id']}", headers={"Tus-Resumable": "1.0.0"})

    assert client.datasets.upload(path, progress=report).bytes == path.stat().st_size
    assert reports.count(0) == 2


def test_a_network_that_breaks_connections(service: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    path = table(tmp_path / "broken.csv", seed=5)
    network = Network(service, cuts=6, longest=300_000)
    try:
        with Client(network.url, service.key) as client:
            dataset = client.datasets.upload(path, "broken")
    finally:
        network.close()
    assert dataset.bytes == path.stat().st_size
    assert network.cuts > 3


def test_a_file_that_changes_meanwhile_is_found_out(client: Client, tmp_path: Path) -> None:
    path = table(tmp_path / "changing.csv", seed=6)

    def report(stored: int, total: int) -> None:
        if stored == 2 * CHUNK:
            path.write_bytes(b"0" * total)

    with pytest.raises(UploadMismatch, match="changed during its upload"):
        client.datasets.upload(path, progress=report)


def test_the_asynchronous_client_uploads_alike(service: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    path = table(tmp_path / "async.csv", 2000, seed=7)

    async def run() -> int | None:
        async with AsyncClient(service.url, service.key) as client:
            return (await (await client.datasets.upload(path)).wait()).samples

    assert anyio.run(run) == 2000


def test_a_folder_gives_the_same_bytes_wherever_it_is(tmp_path: Path) -> None:
    names = ["b/2.png", "a/1.png", "a/10.png", "labels.csv"]
    digests = []
    for number, order in enumerate((names, names[::-1])):
        folder = tmp_path / str(number)
        for name in order:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(name)
            os.utime(folder / name, (1e9 + number, 1e9 + number))
        (folder / ".DS_Store").write_text(str(number))
        zip_folder(folder, tmp_path / f"{number}.zip")
        digests.append((tmp_path / f"{number}.zip").read_bytes())
    assert digests[0] == digests[1]


def test_a_folder_of_classes_becomes_a_dataset(client: Client, data: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "zipfile", "-e", str(data / "digits.zip"), str(tmp_path)], check=True)
    dataset = client.datasets.upload(tmp_path / "digits").wait()
    assert (dataset.name, dataset.samples, dataset.kind) == ("digits", 1796, "images")
    assert client.datasets.upload(tmp_path / "digits").id == dataset.id


def test_what_cannot_be_used_is_said(client: Client, tmp_path: Path) -> None:
    (tmp_path / "noise.npz").write_bytes(b"PK\x03\x04 this is no archive")
    dataset = client.datasets.upload(tmp_path / "noise.npz")
    with pytest.raises(DatasetInvalid) as raised:
        dataset.wait()
    assert raised.value.dataset.state == "invalid"
    assert dataset.report().errors
    (tmp_path / "empty.csv").touch()
    with pytest.raises(ValueError, match="empty"):
        client.datasets.upload(tmp_path / "empty.csv")
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ValueError, match="no files"):
        client.datasets.upload(tmp_path / "nothing")
    with pytest.raises(Invalid, match="delimiter"):
        client.datasets.upload(table(tmp_path / "wrong.csv", 10), delimiter=12345)


def test_read_options_arrive(client: Client, tmp_path: Path) -> None:
    (tmp_path / "german.csv").write_text("x;y\n" + "1,5;a\nnil;b\n" * 40)
    options = {"delimiter": ";", "decimal": ",", "columns": {"x": {"type": "number", "missing": ["nil"]}}}
    dataset = client.datasets.upload(tmp_path / "german.csv", target="y", header=True, **options).wait()
    assert dataset.read_options is not None
    assert dataset.read_options["decimal"] == ","
    (column,) = [column for column in dataset.report().columns if column["name"] == "x"]
    assert column["read_as"] == "number"
    other = dataset.reread(decimal=None, columns=None)
    assert other.version == dataset.version + 1
