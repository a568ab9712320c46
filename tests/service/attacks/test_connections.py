"""Sockets that are held, half-open, slow, endless or not read: they end in time, and others are served meanwhile."""

from __future__ import annotations

import contextlib
import re
import resource
import socket
import time
from collections.abc import Iterator

import pytest

from tests.service.attacks.conftest import Start
from tests.support.attacked_api import HEALTH, AttackedApi, assert_refused, read_answer, request
from tests.support.stack import wait_for

MIB = 1 << 20
DATASET = "/v1/datasets?name=d"
BYTES = "application/octet-stream"


@pytest.fixture(scope="module", autouse=True)
def descriptors() -> Iterator[None]:
    """This process needs some, to open many sockets."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8192)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.contextmanager
def opened(api: AttackedApi, count: int, data: bytes = b"") -> Iterator[list[socket.socket]]:
    """Sockets that have sent some bytes and then say nothing more."""
    with contextlib.ExitStack() as stack:
        sockets = []
        for _ in range(count):
            with contextlib.suppress(OSError):
                sockets.append(stack.enter_context(api.connect()))
                sockets[-1].sendall(data)
        yield sockets


def still_open(sockets: list[socket.socket]) -> int:
    """How many the service has not closed; what it sent is read and dropped."""
    count = 0
    for one in sockets:
        one.setblocking(False)
        try:
            while one.recv(65536):
                pass
        except BlockingIOError:
            count += 1
        except OSError:
            continue
    return count


def assert_all_closed(sockets: list[socket.socket]) -> None:
    wait_for(lambda: not still_open(sockets), seconds=30, what="the service to close all sockets")


HALF_SENT = {
    "nothing": b"",
    "half a method": b"GE",
    "half a line": b"GET /healthz HT",
    "half a header": b"GET /healthz HTTP/1.1\r\nHost: loc",
    "no blank line": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n",
    "blank lines": b"\r\n\r\n",
    "16 KB of headers": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nx-a: " + b"a" * 16_000,
}


@pytest.mark.parametrize("name", HALF_SENT)
def test_half_sent_heads_are_closed_in_time(api: AttackedApi, name: str) -> None:
    with api.watched(most_mib=60), opened(api, 300, HALF_SENT[name]) as sockets:
        assert_all_closed(sockets)


def test_a_slow_head_is_told_why(api: AttackedApi) -> None:
    with api.connect() as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\n")
        assert_refused(read_answer(connection), 408, "head_too_slow")


def test_a_head_of_one_byte_at_a_time_is_refused_in_time(api: AttackedApi) -> None:
    with api.watched(), api.connect() as connection:
        begin = time.monotonic()
        with contextlib.suppress(OSError):
            while time.monotonic() - begin < 30:  # the deadline does not move with each byte
                connection.sendall(b"\r\n")
                time.sleep(0.05)
        assert time.monotonic() - begin < 20


SLOW_BODIES = {
    "dataset": ("PUT", DATASET, BYTES),
    "form": ("POST", "/v1/datasets", "multipart/form-data; boundary=b"),
    "document": ("POST", "/v1/specs:validate", "application/json"),
    "YAML": ("POST", "/v1/jobs", "application/yaml"),
    "JSON": ("POST", "/v1/webhooks", "application/json"),
}


@pytest.mark.parametrize("name", SLOW_BODIES)
def test_a_body_that_stands_still_is_refused(api: AttackedApi, key: str, name: str) -> None:
    method, path, kind = SLOW_BODIES[name]
    data = request(method, path, key, b"--b\r\n" + b"x" * 1000, kind)
    with api.watched(), api.connect() as connection:
        connection.sendall(data[:-500])
        assert_refused(read_answer(connection), 408, "body_too_slow")


def test_a_body_that_trickles_is_refused(api: AttackedApi, key: str) -> None:
    data = request("PUT", DATASET, key, b"x" * 100_000, BYTES)
    with api.watched(), api.connect() as connection:
        connection.sendall(data[: data.index(b"\r\n\r\n") + 4])
        begin = time.monotonic()
        with contextlib.suppress(OSError):
            while time.monotonic() - begin < 30:
                connection.sendall(b"x" * 20)
                time.sleep(0.05)
        assert time.monotonic() - begin < 20
        assert read_answer(connection).status in (0, 408)
    assert not list((api.folder / "storage").rglob("*.part"))


def test_a_body_after_the_answer_is_not_awaited(api: AttackedApi) -> None:
    with api.watched(most_mib=30), api.connect() as connection:
        connection.sendall(request("PUT", DATASET, "", b"x", BYTES, Content_Length=str(1 << 30), Connection=""))
        assert read_answer(connection).status == 401
        with contextlib.suppress(OSError):
            for _ in range(600):
                connection.sendall(bytes(1000))
                time.sleep(0.05)
            pytest.fail("the connection was kept open for a body that nobody reads")


def test_a_short_body_after_the_answer_keeps_the_connection(api: AttackedApi) -> None:
    data = request("POST", "/v1/jobs", "", b"x" * 100, Connection="")
    with api.connect() as connection:
        for _ in range(3):
            connection.sendall(data[:-50])
            assert read_answer(connection).status == 401
            connection.sendall(data[-50:])


def test_pipelined_requests_are_few(api: AttackedApi, key: str) -> None:
    with api.watched(most_mib=30), api.connect() as connection:
        with contextlib.suppress(OSError):
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" * 50_000)
        assert read_answer(connection).status in (0, 200)


def test_garbage_after_a_request_does_not_mix_with_its_answer(api: AttackedApi, key: str) -> None:
    answer = api.send(request("GET", "/healthz", Connection="") + b"\x16\x03\x01garbage")
    assert answer.status in (0, 400)
    with api.connect() as connection:
        connection.sendall(request("GET", "/healthz", Connection=""))
        assert read_answer(connection).status == 200
        connection.sendall(b"\x16\x03\x01garbage")
        assert_refused(read_answer(connection), 400, "bad_http")


def test_answers_that_nobody_reads_are_bounded(api: AttackedApi, key: str) -> None:
    """The whole OpenAPI document, many times, to clients that read nothing."""
    with (
        api.watched(most_mib=120),
        opened(api, 60, request("GET", "/openapi.json", key, Connection="", Accept_Encoding="identity") * 8) as sockets,
    ):
        assert api.send(HEALTH).status == 200
        assert sockets


HUNG_UP = {**SLOW_BODIES, "key": ("POST", "/v1/keys", "application/json")}


@pytest.mark.parametrize("name", HUNG_UP)
def test_a_client_that_hangs_up_is_no_error(api: AttackedApi, key: str, name: str) -> None:
    method, path, kind = HUNG_UP[name]
    data = request(method, path, key, b"--b\r\n" + b"x" * 1000, kind)
    before = len(api.log())

    def hang_up() -> bool:
        with api.connect() as connection:
            connection.sendall(data[:-500])
            time.sleep(0.1)
        time.sleep(0.2)
        return " 499 " in api.log()[before:]

    # a busy machine may take so long that the body is refused as too slow before the client is gone
    wait_for(hang_up, seconds=60, what="a line in the log")
    assert not re.search(r"unexpected error|Traceback| 500 ", api.log()[before:])


def test_idle_sockets_do_not_take_the_descriptors(start_api: Start) -> None:
    """400 sockets for a process that may have 256 descriptors."""
    api = start_api(descriptors=256, TRAINKIT_REQUEST_HEAD_SECONDS="60")
    key = api.key()
    with opened(api, 400), api.watched(most_mib=20):
        for _ in range(5):
            assert api.send(request("GET", "/v1/jobs", key)).status == 200
    with opened(api, 400, b"GET /healthz HTTP/1.1\r\n"):
        assert api.send(request("GET", "/readyz")).status == 200


def test_streams_and_requests_of_a_key_are_capped(start_api: Start) -> None:
    api = start_api(
        TRAINKIT_MAX_STREAMS_PER_KEY="3",
        TRAINKIT_MAX_REQUESTS_PER_KEY="4",
        TRAINKIT_BODY_IDLE_SECONDS="30",
        TRAINKIT_MAX_CONNECTIONS_PER_ADDRESS="20",
        TRAINKIT_REQUEST_HEAD_SECONDS="30",
    )
    key, other = api.key(), api.key("other")
    job = api.queued_job()
    stream = request("GET", f"/v1/jobs/{job}/stream", key, Connection="")
    poll = request("GET", f"/v1/jobs/{job}/metrics?wait=25", key)
    with opened(api, 3, stream) as sockets:
        assert all(one.recv(20).startswith(b"HTTP/1.1 200") for one in sockets)
        for one_more in (stream, poll):
            answer = api.send(one_more)
            assert_refused(answer, 429, "too_many_streams")
            assert int(answer.headers["retry-after"]) > 0
        assert api.send(request("GET", "/v1/jobs", key)).status == 200
        assert api.send(request("GET", f"/v1/jobs/{job}/metrics?wait=0.1", other)).status == 404
    wait_for(lambda: api.send(poll.replace(b"wait=25", b"wait=0.1")).status == 200, what="the streams to be forgotten")

    half = request("PUT", DATASET, key, b"x" * 1000, BYTES)[:-1]
    with opened(api, 4, half):
        answer = wait_for(
            lambda: (found := api.send(request("GET", "/v1/jobs", key))).status == 429 and found, what="the limit"
        )
        assert_refused(answer, 429, "too_many_requests")
        assert api.send(request("GET", "/v1/jobs", other)).status == 200

    # all connections of the address are busy: health is answered, everything else is refused
    with opened(api, 3, stream), opened(api, 3, stream.replace(key.encode(), api.key().encode())):
        more = [api.key() for _ in range(5)]
        with contextlib.ExitStack() as stack:
            for number in range(14):
                again = stream.replace(key.encode(), more[number // 3].encode())
                (one,) = stack.enter_context(opened(api, 1, again))
                assert one.recv(20).startswith(b"HTTP/1.1 200"), "it is busy now"
            assert_refused(api.send(request("GET", "/v1/jobs", other)), 429, "too_many_connections")
            assert api.send(request("GET", "/readyz")).status == 200
            with opened(api, 100), api.watched(most_mib=20):
                assert api.send(HEALTH).status == 200
    wait_for(lambda: api.send(request("GET", "/v1/jobs", other)).status == 200, what="the connections to be forgotten")


def test_a_stream_ends_with_its_connection_whatever_follows_it(api: AttackedApi, key: str) -> None:
    """A request behind a stream on the same connection must not keep the stream alive when the client is gone."""
    job = api.queued_job()
    stream = request("GET", f"/v1/jobs/{job}/stream", key, Connection="")
    with opened(api, 5, stream + request("GET", "/healthz", Connection="")) as sockets:
        assert all(one.recv(20).startswith(b"HTTP/1.1 200") for one in sockets)
    metrics = request("GET", "/metrics", api.key("default", "operator"))

    def no_streams() -> bool:
        return b'trainkit_http_waiting_readers{kind="stream"} 0.0' in api.send(metrics).body

    wait_for(no_streams, what="the streams to end")


def test_behind_a_proxy_each_client_has_its_own_limit_of_connections(start_api: Start) -> None:
    api = start_api(
        TRAINKIT_MAX_CONNECTIONS_PER_ADDRESS="20",  # more than the new ones that no head was read of yet
        TRAINKIT_REQUEST_HEAD_SECONDS="30",
        TRAINKIT_BODY_IDLE_SECONDS="30",
        TRAINKIT_CORS_ORIGINS="https://app.example.com",
    )
    key = api.key()

    def half(client: str) -> bytes:
        return request("PUT", DATASET, key, b"x" * 1000, BYTES, X_Forwarded_For=client)[:-1]

    def status(client: str, path: str = "/v1/jobs") -> int:
        return api.send(request("GET", path, key, X_Forwarded_For=client, X_Forwarded_Prefix="/trainkit")).status

    with opened(api, 20, half("198.51.100.1")) as first, opened(api, 20, half("2001:db8:1:2::1")) as second:
        # one client has all of its connections; whatever it writes before its address, the proxy adds that at the end
        wait_for(lambda: status("198.51.100.1") == 429, what="the limit of the client")
        for same in ("1.2.3.4, 198.51.100.1", "198.51.100.2, 127.0.0.1, 198.51.100.1", "198.51.100.1:443"):
            headers = {"X_Forwarded_For": same, "X_Forwarded_Prefix": "/trainkit"}
            answer = api.send(request("GET", "/v1/jobs", key, **headers))
            assert_refused(answer, 429, "too_many_connections")
            assert answer.document["type"] == "/trainkit/docs/errors#too_many_connections"
            assert answer.headers["vary"] == "Origin"
        from_page = {"X_Forwarded_For": "198.51.100.1", "Origin": "https://app.example.com"}
        answer = api.send(request("GET", "/v1/jobs", key, **from_page))
        assert_refused(answer, 429, "too_many_connections")
        assert answer.headers["access-control-allow-origin"] == from_page["Origin"]
        # an IPv6 client is its network
        wait_for(lambda: status("2001:db8:1:2:ffff::2") == 429, what="the limit of the network")
        # its health is answered, other clients are served, and so is who comes past the proxy
        assert status("198.51.100.1", "/healthz") == status("198.51.100.1", "/trainkit/healthz") == 200
        for other in ("198.51.100.2", "2001:db8:1:3::1", "unknown", ""):
            assert status(other) == 200, other
        assert still_open([*first, *second]) == 40
    wait_for(lambda: status("198.51.100.1") == 200, what="the client's connections to be forgotten")
    # a connection that the proxy keeps open is the client's only while it asks
    with contextlib.ExitStack() as stack:
        for number in range(20):
            connection = stack.enter_context(api.connect())
            for client in ("198.51.100.7", f"198.51.100.{number}"):
                connection.sendall(request("GET", "/v1/jobs", key, X_Forwarded_For=client, Connection="keep-alive"))
                assert read_answer(connection).status == 200
        assert status("198.51.100.7") == 200
