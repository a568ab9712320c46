"""Heads of requests that are no HTTP, or too much of it: refused with a problem, before anything else is read."""

from __future__ import annotations

import pytest

from tests.support.attacked_api import AttackedApi, assert_refused, request

HOST = b"Host: localhost\r\n"
GET = b"GET /healthz HTTP/1.1\r\n"
MIB = 1 << 20


def head(*lines: bytes, first: bytes = GET) -> bytes:
    return first + HOST + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def address(path: str) -> bytes:
    return head(first=f"GET {path} HTTP/1.1\r\n".encode("latin-1"))


def post(*lines: bytes, body: bytes = b"") -> bytes:
    return head(*lines, first=b"POST /v1/jobs HTTP/1.1\r\n") + body


HEADS: dict[str, tuple[bytes, int, str]] = {
    # too much
    "many headers": (head(*(b"x-%d: 1" % number for number in range(101))), 431, "head_too_large"),
    "endless headers": (
        GET + HOST + b"".join(b"x-%d: 1\r\n" % number for number in range(400_000)),
        431,
        "head_too_large",
    ),
    "one header without end": (GET + HOST + b"x-a: " + b"a" * (20 * MIB), 431, "head_too_large"),
    "one name without end": (GET + HOST + b"a" * (20 * MIB), 431, "head_too_large"),
    "one large header": (head(b"x-a: " + b"a" * 33_000), 431, "head_too_large"),
    "many large headers": (head(*(b"x-%d: " % number + b"a" * 7000 for number in range(10))), 431, "head_too_large"),
    "large cookies": (head(*[b"Cookie: " + b"a" * 4000] * 9), 431, "head_too_large"),
    "folded header": (head(b"x-a: b", b" " + b"c" * 40_000), 400, "bad_http"),
    "blank lines without end": (b"\r\n" * MIB, 431, "head_too_large"),
    "address without end": (b"GET /" + b"a" * (20 * MIB), 414, "url_too_long"),
    "long address": (address("/" + "a" * 9000), 414, "url_too_long"),
    "long query": (address("/healthz?" + "a" * 9000), 414, "url_too_long"),
    "many parameters": (address("/healthz?" + "a=1&" * 500), 422, "too_many_parameters"),
    "many empty parameters": (address("/healthz?" + "&" * 5000), 422, "too_many_parameters"),
    "method without end": (b"A" * (5 * MIB), 400, "bad_http"),
    "version without end": (b"GET / HTTP/" + b"1" * MIB, 400, "bad_http"),
    # no HTTP/1.1
    "TLS": (bytes.fromhex("1603010200010001fc0303") + bytes(500), 400, "bad_http"),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "bad_http"),
    "SSH": (b"SSH-2.0-OpenSSH_9.0\r\n", 400, "bad_http"),
    "zeros": (bytes(100_000), 400, "bad_http"),
    "random bytes": (bytes(range(256)) * 100, 400, "bad_http"),
    "HTTP/0.9": (b"GET /\r\n\r\n", 400, "bad_http"),
    "unknown version": (head(first=b"GET / HTTP/9.9\r\n"), 400, "bad_http"),
    "unknown method": (head(first=b"SMUGGLE / HTTP/1.1\r\n"), 400, "bad_http"),
    "lower-case method": (head(first=b"get / HTTP/1.1\r\n"), 400, "bad_http"),
    "CONNECT": (b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org\r\n\r\n", 400, "bad_http"),
    "NUL in a header": (head(b"x-a: \x00"), 400, "bad_http"),
    "NUL in a name": (head(b"x\x00: a"), 400, "bad_http"),
    "bare carriage return": (head(b"x-a: b\rc: d"), 400, "bad_http"),
    "space before the colon": (head(b"x-a : b"), 400, "bad_http"),
    "header without colon": (head(b"nonsense"), 400, "bad_http"),
    "bytes beyond ASCII in the address": (head(first=b"GET /\xff\xfe HTTP/1.1\r\n"), 400, "bad_http"),
    "NUL in the address": (head(first=b"GET /\x00 HTTP/1.1\r\n"), 400, "bad_http"),
    "NUL in a parameter": (address("/healthz?a=%00"), 422, "not_text"),
    "NUL in the path": (address("/%00"), 422, "not_text"),
    # who is meant
    "no host": (GET + b"\r\n", 400, "bad_host"),
    "two hosts": (head(b"Host: other"), 400, "bad_host"),
    "two keys": (head(b"Authorization: Bearer x", b"Authorization: Bearer y"), 400, "bad_http"),
    "empty host": (GET + b"Host:\r\n\r\n", 400, "bad_host"),
    "host with a user": (GET + b"Host: a@localhost\r\n\r\n", 400, "bad_host"),
    "host with a path": (GET + b"Host: localhost/x\r\n\r\n", 400, "bad_host"),
    "rebound name": (b"GET /v1/jobs HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421, "unknown_host"),
    "name that begins with ours": (
        b"GET /v1/jobs HTTP/1.1\r\nHost: localhost.evil.example\r\n\r\n",
        421,
        "unknown_host",
    ),
    "name that ends with an address": (
        b"GET /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1.evil.example\r\n\r\n",
        421,
        "unknown_host",
    ),
    # what comes after the head
    "length and chunks": (
        post(b"Content-Length: 4", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
        400,
        "bad_http",
    ),
    "two lengths": (post(b"Content-Length: 1", b"Content-Length: 2", body=b"ab"), 400, "bad_http"),
    "negative length": (post(b"Content-Length: -1"), 400, "bad_http"),
    "length with a sign": (post(b"Content-Length: +1", body=b"a"), 400, "bad_http"),
    "length in hex": (post(b"Content-Length: 0x10", body=b"a"), 400, "bad_http"),
    "length beyond 64 bits": (post(b"Content-Length: " + b"9" * 30), 400, "bad_http"),
    "compressed transfer": (post(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"), 400, "transfer_encoding"),
    "unknown transfer": (post(b"Transfer-Encoding: nonsense", body=b"0\r\n\r\n"), 400, "bad_http"),
    "no key": (post(b"Content-Length: 10"), 401, "key_missing"),
}


@pytest.mark.parametrize("name", HEADS)
def test_a_hostile_head_is_refused(api: AttackedApi, name: str) -> None:
    data, status, code = HEADS[name]
    with api.watched(most_mib=20):
        answer = api.send(data)
    assert_refused(answer, status, code)


def test_what_is_no_attack_is_served(api: AttackedApi, key: str) -> None:
    for data in (
        head(*(b"x-%d: 1" % number for number in range(60))),
        head(b"x-a: " + b"a" * 8000),
        address("/healthz?" + "&".join("" for _ in range(50))),
        b"\r\n" + head(),
        b"GET http://evil.example/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /healthz HTTP/1.0\r\n\r\n",
        head(b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13"),
        head(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAAP__"),
        GET + b"Host: evil.example\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: [::1]:8321\r\n\r\n",
    ):
        assert api.send(data).status == 200, data[:80]
    assert api.send(request("GET", "/v1/jobs?limit=1&label.team=a", key)).status == 200


def test_a_trailer_changes_nothing(api: AttackedApi, key: str) -> None:
    chunks = b"0\r\nAuthorization: Bearer " + key.encode() + b"\r\n\r\n"
    assert api.send(post(b"Transfer-Encoding: chunked", body=chunks)).status == 401
    endless = b"0\r\n" + b"".join(b"x-%d: 1\r\n" % number for number in range(100_000))
    with api.watched(most_mib=20):
        answer = api.send(request("POST", "/v1/jobs", key, Transfer_Encoding="chunked") + endless)
    assert answer.status in (0, 400, 431)
