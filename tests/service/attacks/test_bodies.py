"""Bodies that are too much, too deep, encoded, or sent by a key that may not: refused while others are served."""

from __future__ import annotations

import gzip
import json
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.service.attacks.conftest import Start
from tests.support.attacked_api import AttackedApi, RawAnswer, assert_refused, read_answer, request

KIB, MIB = 1 << 10, 1 << 20
SPECS = "/v1/specs:validate"
YAML = "application/yaml"
ROWS = b'{"inputs": [' + b'{"a": 1.5, "b": "text", "c": [1, 2, 3]},' * 800_000 + b"1]}"
"""31 MiB, within the limit of predictions."""


def document(value: str) -> bytes:
    return f'{{"dataset": "ds_1", "model": {{"kind": "mlp"}}, "name": {value}}}'.encode()


DOCUMENTS: dict[str, tuple[bytes, str, int, str]] = {
    "beyond the route's limit": (b" " * (257 * KIB), "application/json", 413, "too_large"),
    "far beyond it": (b" " * (40 * MIB), "application/json", 413, "too_large"),
    "deep lists": (b"[" * 200_000, "application/json", 422, "too_deep"),
    "deep objects": (b'{"a":' * 40_000, "application/json", 422, "too_deep"),
    "deep and closed": (b"[" * 50_000 + b"]" * 50_000, "application/json", 422, "too_deep"),
    "just too deep": (b"[" * 34 + b"]" * 34, "application/json", 422, "too_deep"),
    "many empty lists": (b"[" + b"[]," * 80_000 + b"[]]", "application/json", 422, "too_many_values"),
    "many keys": (
        json.dumps(dict.fromkeys(map(str, range(15_000)), 1)).encode(),
        "application/json",
        422,
        "too_many_values",
    ),
    "a key 10,000 times": (b"{" + b'"a":1,' * 10_000 + b'"a":1}', "application/json", 422, "duplicate_key"),
    "huge whole number": (document("9" * 200_000), "application/json", 422, "number_too_large"),
    "whole number beyond 64 bits": (document("9" * 30), "application/json", 422, "number_too_large"),
    "huge exponent": (document("1e" + "9" * 200_000), "application/json", 422, "not_finite"),
    "many digits after the point": (document("0." + "1" * 250_000), "application/json", 422, "invalid_spec"),
    "huge negative exponent": (document("1e-" + "9" * 200_000), "application/json", 422, "invalid_spec"),
    "NaN": (document("NaN"), "application/json", 422, "not_json"),
    "half a surrogate pair": (document('"\\ud800"'), "application/json", 422, "not_text"),
    "NUL": (document('"\\u0000"'), "application/json", 422, "not_text"),
    "UTF-16": ("{}".encode("utf-16"), "application/json", 422, "not_utf8"),
    "unfinished": (b'{"a": ' * 10, "application/json", 422, "not_json"),
    "long text": (document('"' + "x" * 250_000 + '"'), "application/json", 422, "invalid_spec"),
    "aliases": (b"a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n", YAML, 422, "yaml_alias"),
    "billion laughs": (
        b"a: &a [lol]\n" + b"".join(b"%c: &%c [%s]\n" % (n, n, b",".join([b"*%c" % (n - 1)] * 9)) for n in b"bcdefghi"),
        *(YAML, 422, "yaml_alias"),
    ),
    "merge key of an alias": (b"a: &a {b: 1}\nc: {<<: *a}\n", YAML, 422, "yaml_alias"),
    "python object": (b"!!python/object/apply:os.system [id]", YAML, 422, "yaml_tag"),
    "empty whole number": (b"a: !!int ''", YAML, 422, "yaml_tag"),
    "no truth value": (b"a: !!bool maybe", YAML, 422, "yaml_tag"),
    "no time": (b"a: !!timestamp never", YAML, 422, "yaml_tag"),
    "whole number of 6,000 digits": (b"a: " + b"9" * 6000, YAML, 422, "number_too_large"),
    "6,000 hex digits": (b"a: 0x" + b"f" * 6000, YAML, 422, "number_too_large"),
    "6,000 octal digits": (b"a: 0" + b"7" * 6000, YAML, 422, "number_too_large"),
    "20,000 bits": (b"a: 0b" + b"1" * 20_000, YAML, 422, "number_too_large"),
    "3,000 sexagesimal digits": (b"a: 1" + b":30" * 3000, YAML, 422, "number_too_large"),
    "60,000 sexagesimal digits": (b"a: 1" + b":30" * 60_000, YAML, 422, "number_too_large"),
    "sexagesimal fraction": (b"a: 1" + b":30" * 3000 + b".5", YAML, 422, "number_too_large"),
    "hex beyond 64 bits": (b"a: 0x" + b"f" * 100, YAML, 422, "number_too_large"),
    "key of many digits": (b"0x" + b"f" * 6000 + b": 1", YAML, 422, "number_too_large"),
    "year 1 in another zone": (b"a: 0001-01-01 00:00:00 +23:00", YAML, 422, "invalid_spec"),
    "deep flow": (b"[" * 100_000, YAML, 422, "too_deep"),
    "deep blocks": (b"\n".join(b" " * n + b"a:" for n in range(600)), YAML, 422, "too_deep"),
    "many values": (b"[" + b"1," * 100_000 + b"1]", YAML, 422, "too_many_values"),
    "many documents": (b"--- 1\n" * 20_000, YAML, 422, "not_yaml"),
    "no YAML": (b"a: [", YAML, 422, "not_yaml"),
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_hostile_document_is_refused(api: AttackedApi, key: str, name: str) -> None:
    body, kind, status, code = DOCUMENTS[name]
    with api.watched(most_mib=60):
        answer = api.send(request("POST", SPECS, key, body, kind))
    assert_refused(answer, status, code)


ENCODED = {
    "gzip": gzip.compress(bytes(50 * MIB)),
    "deflate": zlib.compress(b"{}"),
    "br": b"{}",
    "gzip, gzip": b"{}",
    "zstd": b"{}",
}


@pytest.mark.parametrize("coding", ENCODED)
def test_no_body_is_decompressed(api: AttackedApi, key: str, coding: str) -> None:
    for method, path, kind in (
        ("POST", SPECS, "application/json"),
        ("PUT", "/v1/datasets?name=d", "application/octet-stream"),
    ):
        with api.watched(most_mib=20):
            answer = api.send(request(method, path, key, ENCODED[coding], kind, Content_Encoding=coding))
        assert_refused(answer, 415, "content_encoding")
    assert api.send(request("POST", SPECS, key, b"[]", Content_Encoding="identity")).document["code"] == "invalid_spec"


def form(*parts: bytes) -> bytes:
    return b"".join(b"--b\r\n" + part + b"\r\n" for part in parts) + b"--b--\r\n"


def field(name: bytes, value: bytes, *headers: bytes) -> bytes:
    lines = (b'Content-Disposition: form-data; name="' + name + b'"', *headers)
    return b"\r\n".join(lines) + b"\r\n\r\n" + value


def file(name: bytes, value: bytes) -> bytes:
    return field(name + b'"; filename="x.csv', value)


FORMS = {
    "many files": form(*(file(b"file", b"x" * 1000) for _ in range(900))),
    "files that fit into memory": form(*(file(b"file", b"x" * 200_000) for _ in range(100))),
    "many fields": form(*(field(b"f%d" % number, b"x") for number in range(900))),
    "large field": form(field(b"name", b"x" * MIB), file(b"file", b"x")),
    "many headers of a part": form(field(b"name", b"x", *(b"x-%d: y" % number for number in range(1000)))),
    "long header of a part": form(field(b"name", b"x", b"x-a: " + b"a" * 100_000)),
    "part without a name": form(b"Content-Disposition: form-data\r\n\r\nx"),
    "part without end": b"--b\r\n" + field(b"name", b"x" * 500_000),
    "boundaries without parts": b"--b\r\n" * 100_000,
    "no boundary": b"x" * 100_000,
}


@pytest.mark.parametrize("name", FORMS)
def test_a_hostile_form_is_refused(api: AttackedApi, key: str, name: str) -> None:
    with api.watched(most_mib=30):
        answer = api.send(request("POST", "/v1/datasets", key, FORMS[name], "multipart/form-data; boundary=b"))
    assert answer.status in (400, 422), answer
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.document["detail"]


def test_a_scope_is_checked_before_a_body_is_read(api: AttackedApi) -> None:
    reader = api.key("default", "viewer")
    for method, path, kind in (
        ("POST", "/v1/webhooks", "application/json"),
        ("POST", "/v1/jobs", YAML),
        ("POST", "/v1/keys", "application/json"),
        ("PUT", "/v1/datasets?name=d", "application/octet-stream"),
        ("POST", "/v1/datasets", "multipart/form-data; boundary=b"),
    ):
        # no byte of the body is ever sent: whoever waited for it would not answer
        data = request(method, path, reader, b"x" * 200_000, kind)
        assert_refused(api.send(data[: data.index(b"\r\n\r\n") + 4]), 403, "forbidden")


def test_a_project_is_checked_before_a_body_is_read(api: AttackedApi, key: str) -> None:
    for action in ("predict", "evaluate"):
        data = request("POST", f"/v1/models/mdl_1/{action}", key, ROWS)
        assert_refused(api.send(data[: data.index(b"\r\n\r\n") + 4]), 404, "not_found")


def test_a_refusal_does_not_ask_for_the_body(api: AttackedApi) -> None:
    reader = api.key("default", "viewer")
    answer = api.send(request("POST", "/v1/webhooks", reader, b"x" * 1000, Expect="100-continue"))
    assert_refused(answer, 403, "forbidden")


@pytest.mark.parametrize(
    ("path", "status"), [("/v1/jobs", 413), (f"{SPECS}?unknown=1", 422), ("/v1/nowhere", 404)], ids=str
)
def test_a_client_that_still_sends_can_read_why_it_was_refused(
    api: AttackedApi, key: str, path: str, status: int
) -> None:
    """With `Connection: close` too: a reset would take the answer away before it was read."""
    size = 30 * MIB if status == 413 else 200_000
    with api.watched(most_mib=20), api.connect() as connection:
        connection.sendall(request("POST", path, key, b"x" * 1000, Content_Length=str(size)))
        assert read_answer(connection).status == status
        assert connection.recv(1) == b"", "the answer is complete, and the server says so"
        for _ in range(20):
            connection.sendall(b"x" * 5000)  # an OSError would be the reset
            time.sleep(0.01)


@pytest.fixture(scope="module")
def model(api: AttackedApi) -> str:
    return api.model()


def parallel(api: AttackedApi, data: bytes, count: int) -> list[RawAnswer]:
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda _: api.send(data, 60), range(count)))


def test_large_predictions_stall_nobody(api: AttackedApi, key: str, model: str) -> None:
    with api.watched(most_mib=60):
        answers = parallel(api, request("POST", f"/v1/models/{model}/predict", key, ROWS), 6)
    # no worker runs: all are let in, and wait for one in vain
    assert [answer.document["code"] for answer in answers] == ["no_prediction_worker"] * 6
    assert all("retry-after" in answer.headers for answer in answers)
    assert list((api.folder / "storage" / "incoming").iterdir()) == []


def test_large_documents_stall_nobody(api: AttackedApi, key: str) -> None:
    heavy = document(json.dumps({f"k{number}": [number] for number in range(6_000)}))
    with api.watched(most_mib=100):
        answers = parallel(api, request("POST", SPECS, key, heavy), 12)
    assert {answer.document["code"] for answer in answers} == {"invalid_spec"}
    with api.watched(most_mib=100):
        answers = parallel(api, request("POST", "/v1/webhooks", key, ROWS), 6)
    assert {answer.status for answer in answers} <= {413}


def test_many_wrong_values_are_not_all_told(api: AttackedApi, key: str) -> None:
    events = {"url": "https://example.org/", "events": [1] * 15_000}
    unknown = {f"field{number}": number for number in range(9_000)}
    for path, body in (("/v1/webhooks", events), (SPECS, unknown), ("/v1/jobs", unknown)):
        with api.watched(most_mib=100):
            answer = api.send(request("POST", path, key, json.dumps(body).encode()))
        assert answer.status == 422
        assert len(answer.document["errors"]) <= 101
        assert len(answer.body) < MIB


def chunked(pieces: Iterator[bytes]) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def test_chunks_are_bounded_like_the_rest(api: AttackedApi, key: str) -> None:
    plain = request("POST", SPECS, key, Transfer_Encoding="chunked", Content_Type="application/json")
    with api.watched(most_mib=20):
        assert_refused(api.send(plain + chunked(b"x" * 100_000 for _ in range(10))), 413, "too_large")
        assert_refused(api.send(plain + chunked(b"x" for _ in range(200_000))), 400, "bad_chunks")
        assert_refused(api.send(plain + b"1;" + b"a" * MIB), 400, "bad_chunks")
        assert_refused(api.send(plain + b"fffffffffffffffff\r\n"), 400, "bad_http")
        assert_refused(api.send(plain + b"-1\r\n"), 400, "bad_http")
        assert api.send(plain + chunked(b"[" + b" " * 20 for _ in range(1))).document["code"] == "not_json"


def test_a_quota_is_checked_before_a_form_is_stored(start_api: Start) -> None:
    api = start_api(TRAINKIT_MAX_STORAGE_BYTES="1000")
    key = api.key()
    kind = "multipart/form-data; boundary=b"
    data = request("POST", "/v1/datasets", key, form(file(b"file", b"x" * (3 * MIB))), kind)
    assert_refused(api.send(data[: data.index(b"\r\n\r\n") + 4]), 413, "quota_exceeded")
    unsized = request("POST", "/v1/datasets", key, Transfer_Encoding="chunked", Content_Type=kind)
    endless = form(file(b"file", b"x" * (3 * MIB)))
    assert_refused(
        api.send(unsized + chunked(endless[at : at + 65536] for at in range(0, len(endless), 65536))),
        413,
        "quota_exceeded",
    )
