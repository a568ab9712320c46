"""A proxy in front: which of its words are believed, and that every address in an answer leads back through it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from service.keys.service import create_key
from service.outbox import service as outbox
from service.proxy_headers import ProxyHeaders, TrustedProxies, checked_root_path, without_root_path
from service.settings import Settings
from tests.support.api import Served, assert_problem

SQLITE = pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)
PROXY, INNER, CLIENT, STRANGER = "10.0.0.1", "10.0.0.2", "198.51.100.7", "203.0.113.9"
TRUSTED = TrustedProxies(["10.0.0.0/24", "fd00::/8"])


def forwarded(*values: str) -> list[tuple[bytes, bytes]]:
    return [(b"x-forwarded-for", value.encode()) for value in values]


CHAINS: dict[str, tuple[str, list[tuple[bytes, bytes]], str | None]] = {
    "one proxy": (PROXY, forwarded(CLIENT), CLIENT),
    "nobody says": (PROXY, [], None),
    "nobody is trusted": (STRANGER, forwarded(CLIENT), None),
    "two proxies": (PROXY, forwarded(f"{CLIENT}, {INNER}"), CLIENT),
    "two headers": (PROXY, forwarded(CLIENT, INNER), CLIENT),
    "the client invents one": (PROXY, forwarded(f"1.2.3.4, {CLIENT}"), CLIENT),
    "the client invents a proxy": (PROXY, forwarded(f"1.2.3.4, {INNER}, {CLIENT}"), CLIENT),
    "the client invents in a header of its own": (PROXY, forwarded("1.2.3.4", CLIENT), CLIENT),
    "nonsense before": (PROXY, forwarded(f"', {{}}, -, {CLIENT}"), CLIENT),
    "nonsense last": (PROXY, forwarded(f"{CLIENT}, unknown"), None),
    "nonsense behind a proxy": (PROXY, forwarded(f"{CLIENT}, unknown, {INNER}"), INNER),
    "only proxies": (PROXY, forwarded(f"{INNER}, {PROXY}"), INNER),
    "with a port": (PROXY, forwarded(f"{CLIENT}:51111"), CLIENT),
    "IPv6": (PROXY, forwarded("2001:db8::7"), "2001:db8::7"),
    "IPv6 with a port": (PROXY, forwarded("[2001:db8::7]:443"), "2001:db8::7"),
    "IPv4 in IPv6": (PROXY, forwarded(f"::ffff:{CLIENT}"), CLIENT),
    "a proxy as IPv4 in IPv6": (f"::ffff:{PROXY}", forwarded(CLIENT), CLIENT),
    "a proxy by IPv6": ("fd00::5", forwarded(CLIENT), CLIENT),
    "empty": (PROXY, forwarded(""), None),
    "very many": (PROXY, forwarded(", ".join(["1.2.3.4"] + [INNER] * 4000)), INNER),
}


@pytest.mark.parametrize("name", CHAINS)
def test_the_client_is_the_last_address_that_no_proxy_has(name: str) -> None:
    peer, headers, client = CHAINS[name]
    assert TRUSTED.client(peer, headers) == client


@pytest.mark.parametrize("name", ["10.0.0.1/8", "proxy", "*", "10.0.0.0/99", "", "http://10.0.0.1"])
def test_a_wrong_proxy_stops_the_start(settings: Settings, name: str) -> None:
    with pytest.raises(ValueError, match="TRAINKIT_TRUSTED_PROXIES"):
        create_app(replace(settings, trusted_proxies=(name,)))


def test_the_setting_of_trusted_proxies() -> None:
    loopback = Settings.from_env({}).trusted_proxies
    assert "127.0.0.9" in TrustedProxies(loopback)
    assert "::1" in TrustedProxies(loopback)
    assert PROXY not in TrustedProxies(loopback)
    assert Settings.from_env({"TRAINKIT_TRUSTED_PROXIES": "none"}).trusted_proxies == ()
    given = Settings.from_env({"TRAINKIT_TRUSTED_PROXIES": " 10.0.0.1, fd00::/8,"}).trusted_proxies
    assert given == ("10.0.0.1", "fd00::/8")


def test_root_paths() -> None:
    for given, path in {
        "": "",
        "/": "",
        "/a": "/a",
        "/a/": "/a",
        "/tools/train-kit_2.0/~me": "/tools/train-kit_2.0/~me",
    }.items():
        assert checked_root_path(given) == path
    wrong = [
        "a",
        "//a",
        "/a//b",
        "/..",
        "/a/../b",
        "/a b",
        "/a?x",
        "/a#x",
        "/ä",
        "https://x/a",
        "/v1",
        "/docs/a",
        "/%61",
    ]
    for given in [*wrong, "/a\n", "/" + "x" * 101]:
        with pytest.raises(ValueError, match="TRAINKIT_ROOT_PATH"):
            checked_root_path(given)
    for path, inside in {
        "/a/v1": "/v1",
        "/a": "/",
        "/a/": "/",
        "/ab/v1": "/ab/v1",
        "/v1": "/v1",
        "/x/a": "/x/a",
    }.items():
        assert without_root_path(path, "/a") == inside


class Proxied:
    """The application behind a proxy at `PROXY` that strips the prefix, or does not."""

    def __init__(self, settings: Settings, prefix: str, *, strips: bool, **headers: str) -> None:
        self.app = create_app(settings)
        self.prefix, self.strips = prefix, strips
        with self.app.state.context.sessions.begin() as session:
            self.key = create_key(session, "default", "test")
        self.headers = {"X-Forwarded-For": CLIENT, "Host": "trainkit.example.com", **headers}
        self.client = TestClient(self.app, client=(PROXY, 1), follow_redirects=False)

    def request(self, method: str, address: str, *, key: bool = True, **options: Any) -> Any:
        assert address.startswith(f"{self.prefix}/"), f"{address} leads around the proxy"
        path = address.removeprefix(self.prefix) if self.strips else address
        headers = {**self.headers, **options.pop("headers", {})}
        if key:
            headers["Authorization"] = f"Bearer {self.key}"
        return self.client.request(method, path, headers=headers, **options)


@pytest.fixture(params=["stripped, by setting", "whole, by setting", "stripped, by header", "whole, by header"])
def proxied(request: pytest.FixtureRequest, settings: Settings) -> Iterator[Proxied]:
    how, _, by = request.param.partition(", ")
    settings = replace(settings, trusted_proxies=(PROXY,), root_path="/tools/trainkit" if by == "by setting" else "")
    headers = {} if by == "by setting" else {"X-Forwarded-Prefix": "/tools/trainkit/"}
    found = Proxied(settings, "/tools/trainkit", strips=how == "stripped", **headers)
    yield found
    found.app.state.context.engine.dispose()


@SQLITE
def test_addresses_in_answers_lead_back_through_the_proxy(proxied: Proxied) -> None:
    tus = {"Tus-Resumable": "1.0.0"}
    created = proxied.request("POST", "/tools/trainkit/v1/uploads", headers={**tus, "Upload-Length": "3"})
    assert created.status_code == 201, created.text
    upload = created.headers["location"]
    assert proxied.request("HEAD", upload, headers=tus).headers["upload-offset"] == "0"
    stored = proxied.request("PUT", "/tools/trainkit/v1/datasets?name=d", content=b"a,b\n1,2\n")
    assert proxied.request("GET", stored.headers["location"]).json()["id"] == stored.json()["id"]
    # the framework's own redirect, which it writes with the host of the request
    slash = proxied.request("GET", "/tools/trainkit/v1/jobs/?limit=1")
    assert (slash.status_code, slash.headers["location"]) == (307, "/tools/trainkit/v1/jobs?limit=1")
    # a problem's type, and what the detail names
    missing = proxied.request("GET", "/tools/trainkit/v1/job")
    document = missing.json()
    address, _, fragment = document["type"].partition("#")
    assert f'<section id="{fragment}">' in proxied.request("GET", address, key=False).text
    assert document["detail"].startswith(
        "There is nothing at /tools/trainkit/v1/job. Did you mean /tools/trainkit/v1/jobs? GET /tools/trainkit/openapi.json"
    )
    for path in ("/healthz", "/docs/errors", "/docs/errors.css", "/docs", "/docs/page.js"):
        assert proxied.request("GET", f"/tools/trainkit{path}", key=False).status_code == 200
    assert proxied.request("GET", "/tools/trainkit/v1/jobs", key=False).status_code == 401
    assert proxied.request("GET", "/tools/trainkit/openapi.json").json()["servers"] == [{"url": "/tools/trainkit"}]


@SQLITE
def test_the_plots_of_a_diagnosis_lead_back_through_the_proxy(service: Served) -> None:
    service.submit()
    job = service.claim().job_id
    found = service.client.get(f"/v1/jobs/{job}/diagnosis").json()["verdicts"]
    assert {verdict["plot"].partition("/diagnosis/")[0] for verdict in found} == {f"/v1/jobs/{job}"}
    behind = TestClient(
        service.app,
        client=("127.0.0.1", 1),
        headers={**service.client.headers, "X-Forwarded-Prefix": "/a", "Host": "localhost"},
    )
    for verdict in behind.get(f"/v1/jobs/{job}/diagnosis").json()["verdicts"]:
        assert verdict["plot"].startswith(f"/a/v1/jobs/{job}/diagnosis/")
        assert behind.get(verdict["plot"]).status_code in (200, 404)


def test_messages_name_the_root_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINKIT_ROOT_PATH", "/trainkit/")
    outbox._root_path.cache_clear()
    assert outbox._root_path() == "/trainkit"
    monkeypatch.undo()
    outbox._root_path.cache_clear()
    assert outbox._root_path() == ""


def answered(root_path: str, peer: str, **headers: str) -> dict[str, Any]:
    """What the application sees of a request: client, scheme, host, root path."""
    seen: dict[str, Any] = {}

    async def note(scope: Any, receive: Any, send: Any) -> None:
        seen.update(scope)

    client = TestClient(ProxyHeaders(note, TRUSTED, root_path), client=(peer, 5), raise_server_exceptions=False)
    client.get("/v1/jobs", headers={"Host": "inside:8321", **headers})
    host = dict(seen["headers"])[b"host"].decode()
    return {"client": seen["client"][0], "scheme": seen["scheme"], "host": host, "root": seen["state"]["root_path"]}


LIES = {
    "X-Forwarded-For": "1.2.3.4",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Prefix": "/evil",
}


def test_a_stranger_s_headers_change_nothing() -> None:
    plain = {"client": STRANGER, "scheme": "http", "host": "inside:8321", "root": ""}
    assert answered("", STRANGER, **LIES) == plain
    assert answered("", PROXY, **LIES) == {
        "client": "1.2.3.4",
        "scheme": "https",
        "host": "evil.example",
        "root": "/evil",
    }


def test_the_nearest_proxy_and_the_operator_have_the_last_word() -> None:
    seen = answered(
        "/own",
        PROXY,
        **{
            "X-Forwarded-Proto": "https, http",
            "X-Forwarded-Host": "evil.example, trainkit.example.com",
            "X-Forwarded-Prefix": "/evil",
        },
    )
    assert (seen["scheme"], seen["host"], seen["root"]) == ("http", "trainkit.example.com", "/own")


@pytest.mark.parametrize(
    "prefix", ["//evil.example", "https://evil.example", "/a\\b", "/a b", "/..", "/v1", "/%c3%a4", "/a,/b", "a"]
)
def test_a_prefix_that_leads_elsewhere_is_ignored(prefix: str) -> None:
    assert answered("", PROXY, **{"X-Forwarded-Prefix": prefix})["root"] == ""


@SQLITE
def test_the_forwarded_host_must_be_allowed(settings: Settings) -> None:
    app = create_app(replace(settings, allowed_hosts=("trainkit.example.com",), trusted_proxies=(PROXY,)))
    proxy, stranger = (TestClient(app, client=(address, 1)) for address in (PROXY, STRANGER))
    inside, right = {"Host": "10.0.0.9:8321"}, {"X-Forwarded-Host": "trainkit.example.com"}
    assert_problem(proxy.get("/v1/jobs", headers={**inside, **right}), 401, "key_missing")
    assert_problem(proxy.get("/v1/jobs", headers={**inside, "X-Forwarded-Host": "evil.example"}), 421, "unknown_host")
    for bad in ("evil.example/trainkit.example.com", "a@trainkit.example.com", "a b"):
        assert_problem(proxy.get("/v1/jobs", headers={**inside, "X-Forwarded-Host": bad}), 400, "bad_host")
    assert_problem(stranger.get("/v1/jobs", headers={**inside, **right}), 421, "unknown_host")
    app.state.context.engine.dispose()


@SQLITE
def test_no_spelling_of_a_path_reaches_a_closed_route_without_a_key(proxied: Proxied) -> None:
    client = proxied.client
    for path in (
        "/tools/trainkit/docs/../v1/jobs",
        "/tools/trainkit//v1/jobs",
        "/tools/trainkit/tools/trainkit/v1/jobs",
        "/healthz/../v1/jobs",
        "/tools/trainkit/healthz/",
        "/tools/trainkitv1/jobs",
        "/tools/trainkit/docs/%2e%2e/v1/jobs",
    ):
        answer = client.get(path, headers=proxied.headers)
        assert answer.status_code in (401, 404), f"{path}: {answer.status_code}"
        assert answer.headers["content-type"] == "application/problem+json"
        assert "data" not in answer.json()
