"""tus 1.0: an upload goes on where it was cut, and its last byte makes one dataset."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from sqlalchemy import update
from starlette.types import Message

from service.database import db_now
from service.errors import HttpProblem
from service.leases import Claim
from service.uploads import receive
from service.uploads.metadata import dataset_metadata
from service.uploads.tables import Upload
from tests.support.api import Served
from tests.support.tus_requests import CHUNK, VERSION, begun, checksum, create, head, metadata, offset_of, patch

BYTES = bytes(range(256)) * 400
SHA = hashlib.sha256(BYTES).hexdigest()


def files(service: Served) -> list[Path]:
    return [path for path in service.context.storage.root.rglob("*") if path.is_file()]


def datasets(service: Served) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = service.client.get("/v1/datasets").json()["data"]
    return listed


def test_it_says_what_it_speaks(service: Served) -> None:
    answer = service.client.options("/v1/uploads")
    assert (answer.status_code, answer.headers["tus-version"]) == (204, "1.0.0")
    assert set(answer.headers["tus-extension"].split(",")) == {
        "creation",
        "creation-with-upload",
        "creation-defer-length",
        "checksum",
        "termination",
        "expiration",
    }
    assert answer.headers["tus-max-size"] == str(service.context.settings.max_upload_bytes)
    assert set(answer.headers["tus-checksum-algorithm"].split(",")) == {"sha1", "sha256"}


def test_chunks_become_a_dataset(service: Served) -> None:
    where = begun(service.client, len(BYTES), name="iris", kind="table", target="label", filename="a/iris.csv")
    for offset in range(0, len(BYTES), 30000):
        chunk = BYTES[offset : offset + 30000]
        answer = patch(service.client, where, offset, chunk)
        assert (answer.status_code, answer.headers["upload-offset"]) == (204, str(offset + len(chunk))), answer.text
        assert answer.headers["tus-resumable"] == "1.0.0"
    (dataset,) = datasets(service)
    assert answer.headers["trainkit-dataset"] == dataset["id"]
    assert (dataset["name"], dataset["kind"], dataset["target"], dataset["version"]) == ("iris", "table", "label", 1)
    assert (dataset["sha256"], dataset["bytes"], dataset["state"]) == (SHA, len(BYTES), "validating")
    (stored,) = files(service)
    assert (stored.name, stored.read_bytes()) == (SHA, BYTES)
    shown = service.client.get(where).json()
    assert (shown["state"], shown["dataset"], shown["offset"], shown["sha256"]) == (
        "finished",
        dataset["id"],
        len(BYTES),
        SHA,
    )
    assert shown["filename"] == "iris.csv"
    assert service.client.get("/v1/uploads").json()["data"] == [shown]
    assert service.client.get("/v1/uploads?state=uploading").json()["data"] == []


def test_the_last_chunk_again_makes_no_second_dataset(service: Served) -> None:
    where = begun(service.client, 10)
    dataset = patch(service.client, where, 0, b"0123456789").headers["trainkit-dataset"]
    again = patch(service.client, where, 0, b"0123456789")
    assert (again.status_code, again.json()["code"], again.headers["upload-offset"]) == (409, "wrong_offset", "10")
    nothing = patch(service.client, where, 10, b"")
    offset = head(service.client, where)
    assert (nothing.status_code, offset.status_code) == (204, 200)
    for answer in (again, nothing, offset):
        assert answer.headers["trainkit-dataset"] == dataset
    assert len(datasets(service)) == 1


def test_head_tells_all(service: Served) -> None:
    where = begun(service.client, 10, name="d", filename="x.csv")
    patch(service.client, where, 0, b"0123")
    answer = head(service.client, where)
    assert (answer.headers["upload-offset"], answer.headers["upload-length"]) == ("4", "10")
    assert answer.headers["upload-metadata"] == metadata(name="d", filename="x.csv")
    assert (answer.headers["cache-control"], answer.headers["tus-resumable"]) == ("no-store", "1.0.0")
    assert answer.headers["upload-expires"].endswith("GMT")
    assert "trainkit-dataset" not in answer.headers


def test_creation_may_bring_bytes(service: Served) -> None:
    headers = {**VERSION, "Upload-Length": "10", "Upload-Metadata": metadata(name="d"), "Content-Type": CHUNK}
    part = service.client.post("/v1/uploads", headers=headers, content=b"01234")
    assert (part.status_code, part.headers["upload-offset"], part.json()["offset"]) == (201, "5", 5)
    assert patch(service.client, part.headers["location"], 5, b"56789").status_code == 204
    whole = service.client.post("/v1/uploads", headers=headers, content=b"abcdefghij")
    assert whole.headers["trainkit-dataset"] == whole.json()["dataset"]
    assert sorted(path.read_bytes() for path in files(service)) == [b"0123456789", b"abcdefghij"]


def test_the_length_may_come_later_but_once(service: Served) -> None:
    where = begun(service.client, None)
    assert head(service.client, where).headers["upload-defer-length"] == "1"
    assert patch(service.client, where, 0, b"01234").status_code == 204
    short = patch(service.client, where, 5, b"", **{"Upload-Length": "4"})
    assert (short.status_code, short.json()["code"]) == (400, "length_changed")
    assert patch(service.client, where, 5, b"56", **{"Upload-Length": "8"}).headers["upload-length"] == "8"
    assert patch(service.client, where, 7, b"7", **{"Upload-Length": "9"}).json()["code"] == "length_changed"
    assert "trainkit-dataset" in patch(service.client, where, 7, b"7", **{"Upload-Length": "8"}).headers
    known = begun(service.client, None)
    patch(service.client, known, 0, b"abc")
    assert "trainkit-dataset" in patch(service.client, known, 3, b"", **{"Upload-Length": "3"}).headers


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
def test_a_chunk_that_does_not_match_its_checksum_is_not_kept(service: Served, algorithm: str) -> None:
    where = begun(service.client, 10)
    good = {"Upload-Checksum": checksum(b"01234", algorithm)}
    bad = patch(service.client, where, 0, b"01x34", **good)
    assert (bad.status_code, bad.json()["code"], bad.headers["tus-resumable"]) == (460, "checksum_mismatch", "1.0.0")
    assert offset_of(service.client, where) == 0
    assert patch(service.client, where, 0, b"01234", **good).status_code == 204
    bad = patch(service.client, where, 5, b"x6789", **{"Upload-Checksum": checksum(b"56789", algorithm)})
    assert bad.status_code == 460
    assert (offset_of(service.client, where), datasets(service)) == (5, [])
    patch(service.client, where, 5, b"56789", **{"Upload-Checksum": checksum(b"56789", algorithm)})
    assert [path.read_bytes() for path in files(service)] == [b"0123456789"]


def test_a_large_checked_chunk_counts_only_when_it_is_whole(service: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receive, "FSYNC_BYTES", 1000)
    where = begun(service.client, len(BYTES))
    assert patch(service.client, where, 0, BYTES, **{"Upload-Checksum": checksum(b"other")}).status_code == 460
    assert offset_of(service.client, where) == 0
    assert patch(service.client, where, 0, BYTES, **{"Upload-Checksum": checksum(BYTES)}).status_code == 204
    assert datasets(service)[0]["sha256"] == SHA


def cut(service: Served, where: str, offset: int, *parts: bytes, **headers: str) -> None:
    """A PATCH whose client goes away after some parts."""
    messages: list[Message] = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    messages.append({"type": "http.disconnect"})
    sent = {**VERSION, "Content-Type": CHUNK, "Upload-Offset": str(offset), **headers}
    sent |= {"Host": "test", "Authorization": f"Bearer {service.key('default')}"}
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "PATCH",
        "path": where,
        "raw_path": where.encode(),
        "query_string": b"",
        "headers": [(name.lower().encode(), value.encode()) for name, value in sent.items()],
        "root_path": "",
        "scheme": "http",
        "server": ("test", 80),
    }

    async def take() -> Message:
        return messages.pop(0)

    async def send(message: Message) -> None:
        return None

    anyio.run(service.app, scope, take, send)
    assert messages == []


def test_what_came_before_the_cut_is_kept(service: Served) -> None:
    where = begun(service.client, 10)
    cut(service, where, 0, b"012", b"34")
    assert offset_of(service.client, where) == 5
    cut(service, where, 5, b"56", **{"Upload-Checksum": checksum(b"56789")})
    assert offset_of(service.client, where) == 5, "a checked chunk is kept whole or not at all"
    cut(service, where, 5, b"56789")
    assert head(service.client, where).headers["trainkit-dataset"] == datasets(service)[0]["id"]
    assert [path.read_bytes() for path in files(service)] == [b"0123456789"]


def test_a_client_that_falls_silent_does_not_hold_the_upload(service: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receive, "IDLE_SECONDS", 0.05)
    where = begun(service.client, 10)
    file = service.context.storage.local_path(f"uploads/{where.rsplit('/', 1)[1]}")
    claim = Claim(where.rsplit("/", 1)[1], 0)
    writer = receive.Writer(service.sessions, claim, receive.locked_file(file), 0, 10, 10, 60)
    messages: list[Message] = [{"type": "http.request", "body": b"0123", "more_body": True}]

    async def take() -> Message:
        if not messages:
            await anyio.sleep(60)
        return messages.pop(0)

    with pytest.raises(Exception, match="No bytes came"):
        anyio.run(writer.take, take)
    writer.close()
    assert offset_of(service.client, where) == 4


def test_only_one_writes(service: Served) -> None:
    where = begun(service.client, 10)
    path = service.context.storage.local_path(f"uploads/{where.rsplit('/', 1)[1]}")
    other = receive.locked_file(path)
    assert other is not None
    for answer in (patch(service.client, where, 0, b"01234"), service.client.delete(where, headers=VERSION)):
        assert (answer.status_code, answer.json()["code"]) == (423, "upload_locked")
        assert answer.headers["retry-after"] == "1"
    assert head(service.client, where).status_code == 200
    other.close()
    assert patch(service.client, where, 0, b"01234").status_code == 204


def test_a_writer_that_was_given_up_writes_no_more(service: Served) -> None:
    where = begun(service.client, 10)
    identifier = where.rsplit("/", 1)[1]

    def body() -> Iterator[bytes]:
        yield b"01"
        with service.sessions.begin() as session:
            session.execute(update(Upload).where(Upload.id == identifier).values(fence=Upload.fence + 1))
        yield b"23"

    assert patch(service.client, where, 0, body()).status_code == 423
    assert offset_of(service.client, where) == 0


def test_bytes_beyond_the_offset_are_cut_off(service: Served) -> None:
    """What a killed process has written but not recorded."""
    where = begun(service.client, 10)
    patch(service.client, where, 0, b"01234")
    with service.context.storage.local_path(f"uploads/{where.rsplit('/', 1)[1]}").open("ab") as file:
        file.write(b"garbage that is longer than the rest")
    receive._running_hashes.clear()  # another process: it has not seen the first bytes
    assert patch(service.client, where, 5, b"56789").status_code == 204
    assert datasets(service)[0]["sha256"] == hashlib.sha256(b"0123456789").hexdigest()
    assert [path.read_bytes() for path in files(service)] == [b"0123456789"]


def test_a_file_that_lost_bytes_is_sent_again_from_there(service: Served) -> None:
    where = begun(service.client, 10)
    patch(service.client, where, 0, b"01234")
    service.context.storage.local_path(f"uploads/{where.rsplit('/', 1)[1]}").write_bytes(b"012")
    answer = patch(service.client, where, 5, b"56789")
    assert (answer.status_code, answer.headers["upload-offset"]) == (409, "3")
    assert patch(service.client, where, 3, b"3456789").status_code == 204
    assert [path.read_bytes() for path in files(service)] == [b"0123456789"]


def test_a_received_upload_gets_its_dataset_from_whoever_looks(service: Served) -> None:
    """The process died between the last byte and the dataset."""
    where = begun(service.client, 10)
    identifier = where.rsplit("/", 1)[1]
    patch(service.client, where, 0, b"01234")
    service.context.storage.local_path(f"uploads/{identifier}").write_bytes(b"0123456789")
    sha256 = hashlib.sha256(b"0123456789").hexdigest()
    with service.sessions.begin() as session:
        row = update(Upload).where(Upload.id == identifier)
        session.execute(row.values(state="received", received=10, sha256=sha256))
    ids = {head(service.client, where).headers["trainkit-dataset"] for _ in range(2)}
    assert ids == {d["id"] for d in datasets(service)}
    assert len(ids) == 1


def test_a_received_upload_without_its_file_fails_with_the_reason(service: Served) -> None:
    where = begun(service.client, 10)
    with service.sessions.begin() as session:
        session.execute(update(Upload).values(state="received", received=10, sha256="0" * 64))
    answer = head(service.client, where)
    assert answer.status_code == 410
    shown = service.client.get(where).json()
    assert (shown["state"], shown["error"]["code"]) == ("failed", "bytes_lost")
    assert (patch(service.client, where, 10, b"").status_code, datasets(service)) == (410, [])


def test_the_same_bytes_are_stored_once_and_are_the_same_version(service: Served) -> None:
    first = service.client.put("/v1/datasets?name=d", content=b"0123456789").json()
    where = begun(service.client, 10, name="d")
    assert patch(service.client, where, 0, b"0123456789").headers["trainkit-dataset"] == first["id"]
    other = begun(service.client, 10, name="other")
    assert patch(service.client, other, 0, b"0123456789").headers["trainkit-dataset"] != first["id"]
    next_version = begun(service.client, 3, name="d")
    patch(service.client, next_version, 0, b"new")
    assert [(d["name"], d["version"]) for d in datasets(service)] == [("d", 2), ("other", 1), ("d", 1)]
    assert len(files(service)) == 2


def test_giving_up_removes_the_bytes(service: Served) -> None:
    where = begun(service.client, 10)
    patch(service.client, where, 0, b"01234")
    assert len(files(service)) == 1
    answer = service.client.delete(where, headers=VERSION)
    assert (answer.status_code, answer.headers["tus-resumable"]) == (204, "1.0.0")
    assert files(service) == []
    for gone in (head(service.client, where), patch(service.client, where, 5, b"5"), service.client.get(where)):
        assert gone.status_code == 404
    assert files(service) == []
    done = begun(service.client, 3)
    patch(service.client, done, 0, b"abc")
    assert service.client.delete(done, headers=VERSION).status_code == 204
    assert (len(datasets(service)), len(files(service))) == (1, 1)


def test_an_expired_upload_is_gone(service: Served) -> None:
    where = begun(service.client, 10)
    patch(service.client, where, 0, b"01234")
    with service.sessions.begin() as session:
        session.execute(update(Upload).values(expires_at=db_now(plus=-1)))
    for answer in (head(service.client, where), patch(service.client, where, 5, b"56789")):
        assert answer.status_code == 410
    assert datasets(service) == []


def test_another_project_sees_nothing(service: Served) -> None:
    where = begun(service.client, 10)
    stranger = service.client_for("another")
    for answer in (head(stranger, where), patch(stranger, where, 0, b"x"), stranger.delete(where, headers=VERSION)):
        assert answer.status_code == 404
    assert stranger.get("/v1/uploads").json()["data"] == []
    assert offset_of(service.client, where) == 0


def test_clients_that_cannot_patch_post(service: Served) -> None:
    where = begun(service.client, 4)
    headers = {**VERSION, "Content-Type": CHUNK, "Upload-Offset": "0"}
    assert service.client.post(where, content=b"abcd", headers=headers).status_code == 400
    headers["X-HTTP-Method-Override"] = "PATCH"
    assert "trainkit-dataset" in service.client.post(where, content=b"abcd", headers=headers).headers


def test_a_key_that_may_only_write_can_do_all_of_it(service: Served) -> None:
    writer = service.client_for("default", "developer")
    assert writer.options("/v1/uploads").status_code == 204
    where = begun(writer, 4)
    assert offset_of(writer, where) == 0
    assert "trainkit-dataset" in patch(writer, where, 0, b"abcd").headers
    reader = service.client_for("default", "viewer")
    assert create(reader, 4).status_code == 403
    assert reader.get(where).json()["state"] == "finished"


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Tus-Resumable": "0.2.2"}, 412, "tus_version"),
        ({"Upload-Offset": "1"}, 409, "wrong_offset"),
        ({"Upload-Offset": "-1"}, 400, "not_a_number"),
        ({"Upload-Offset": "9" * 30}, 400, "not_a_number"),
        ({"Upload-Offset": ""}, 400, "not_a_number"),
        ({"Content-Type": "application/octet-stream"}, 415, "unsupported_media_type"),
        ({"Upload-Checksum": "md5 abc"}, 400, "checksum_unknown"),
        ({"Upload-Checksum": "sha1 abc"}, 400, "checksum_unknown"),
        ({"Upload-Checksum": "sha1"}, 400, "checksum_unknown"),
        ({"Upload-Length": "11"}, 400, "length_changed"),
    ],
)
def test_wrong_chunks_say_why(service: Served, headers: dict[str, str], status: int, code: str) -> None:
    where = begun(service.client, 10)
    answer = patch(service.client, where, 0, b"01234", **headers)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["tus-resumable"] == "1.0.0"
    assert offset_of(service.client, where) == 0


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({}, 400, "length_needed"),
        ({"Upload-Length": "5", "Upload-Defer-Length": "1"}, 400, "length_needed"),
        ({"Upload-Defer-Length": "2"}, 400, "length_needed"),
        ({"Upload-Length": "five"}, 400, "not_a_number"),
        ({"Upload-Length": "0"}, 422, "empty"),
        ({"Upload-Length": "5", "Upload-Metadata": "name !!"}, 400, "metadata_invalid"),
        ({"Upload-Length": "5", "Upload-Metadata": "name /w=="}, 400, "metadata_invalid"),
        ({"Upload-Length": "5", "Upload-Metadata": "name YQ==,name YQ=="}, 400, "metadata_invalid"),
        ({"Upload-Length": "5", "Upload-Metadata": metadata(name="a/b")}, 422, "metadata_invalid"),
        ({"Upload-Length": "5", "Upload-Metadata": metadata(name="a\x00b")}, 422, "metadata_invalid"),
        ({"Upload-Length": "5", "Upload-Metadata": metadata(name="a" * 201)}, 422, "metadata_invalid"),
        ({"Upload-Length": "5", "Upload-Metadata": metadata(kind="nonsense")}, 422, "metadata_invalid"),
        ({"Upload-Length": "5", "Upload-Metadata": metadata(target="a\x00")}, 422, "metadata_invalid"),
        ({"Upload-Length": "5", "Upload-Metadata": metadata(x="a" * 9000)}, 400, "metadata_too_long"),
        ({"Upload-Length": "99999999999"}, 413, "too_large"),
    ],
)
def test_wrong_beginnings_say_why(service: Served, headers: dict[str, str], status: int, code: str) -> None:
    answer = service.client.post("/v1/uploads", headers={**VERSION, **headers})
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.headers["tus-resumable"] == "1.0.0"
    if status != 413:
        (error,) = answer.json()["errors"]
        assert error["pointer"].startswith("header/Upload-")
        assert error["hint"]


def test_the_name_comes_from_the_file_when_nothing_else_is_said(service: Served) -> None:
    shown = create(service.client, 5, filename="..\\dir/flowers.v2.tar.gz").json()
    assert (shown["name"], shown["filename"]) == ("flowers", "flowers.v2.tar.gz")
    assert service.client.post("/v1/uploads", headers={**VERSION, "Upload-Length": "5"}).json()["name"] == "dataset"


def test_more_than_the_length_is_refused(service: Served) -> None:
    where = begun(service.client, 10)
    patch(service.client, where, 0, b"01")
    for body in (b"x" * 9, iter([b"23456789", b"x"])):
        answer = patch(service.client, where, 2, body)
        assert (answer.status_code, answer.json()["limit_bytes"]) == (413, 10)
    assert datasets(service) == []
    rest = offset_of(service.client, where)
    assert "trainkit-dataset" in patch(service.client, where, rest, b"0123456789"[rest:]).headers


@pytest.mark.parametrize(("text", "expected"), [("3", 3), ("0", 0), ("1001", None), ("9" * 5000, None), ("2.5", None)])
def test_the_metadatas_text_is_read_as_the_options_number(text: str, expected: int | None) -> None:
    if expected is not None:
        assert dataset_metadata(metadata(name="d", skip_rows=text)).read_options == {"skip_rows": expected}
        return
    with pytest.raises(HttpProblem) as refused:
        dataset_metadata(metadata(name="d", skip_rows=text))
    assert refused.value.code in ("metadata_invalid", "metadata_too_long")
