"""Two API processes behind nginx and behind Caddy, below a path, as the documentation configures them."""

from __future__ import annotations

import itertools
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import httpx_sse
import pytest

from tests.support.api_steps import example_spec, submit, upload, wait_until
from tests.support.attacked_api import AttackedApi
from tests.support.reverse_proxy import ROOT_PATH, ReverseProxy, reverse_proxy
from tests.support.stack import TRAINKIT, Stack, free_port, wait_for

TUS = {"Tus-Resumable": "1.0.0"}
SQLITE = pytest.mark.parametrize("stack", ["sqlite"], indirect=True)
PROXIES = pytest.mark.parametrize("program", ["nginx", "caddy"])


@pytest.fixture
def second_api(stack: Stack) -> Iterator[int]:
    """The port of a second API process of the same service."""
    port = free_port()
    with (stack.folder / "second-api.log").open("ab") as log:
        command = [TRAINKIT, "api", "--port", str(port)]
        process = subprocess.Popen(command, env=stack.environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def ready() -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=2).status_code == 200
        except httpx.HTTPError:
            return False

    wait_for(ready, what="the second API")
    yield port
    process.kill()
    process.wait()


@SQLITE
def test_everything_works_through_both(stack: Stack, second_api: int, data: Path, tmp_path: Path) -> None:
    model: dict[str, Any] = {}
    for program in ("nginx", "caddy"):
        folder = tmp_path / program
        folder.mkdir()
        with reverse_proxy(program, folder, [stack.port, second_api]) as proxy, proxy.client(stack.key) as client:
            walk(proxy, client, data, model)


def walk(proxy: ReverseProxy, client: httpx.Client, data: Path, model: dict[str, Any]) -> None:
    """What clients do, asked by way of the proxy alone."""
    # a resumable upload whose parts reach whichever process
    body = (data / "cancer.csv").read_bytes()
    created = client.post("/v1/uploads", headers={**TUS, "Upload-Length": str(len(body))})
    assert created.status_code == 201, created.text
    place = f"{proxy.url}{created.headers['location']}"
    for begin in range(0, len(body), size := -(-len(body) // 4)):
        headers = {**TUS, "Content-Type": "application/offset+octet-stream", "Upload-Offset": str(begin)}
        assert client.patch(place, content=body[begin : begin + size], headers=headers).status_code == 204
    assert client.head(place, headers=TUS).headers["upload-offset"] == str(len(body))
    # addresses, TLS and the client's key
    assert client.get("/healthz").headers["strict-transport-security"]
    assert client.get("/openapi.json").json()["servers"] == [{"url": ROOT_PATH}]
    assert client.get("/v1/jobs/", follow_redirects=True).json()["data"] is not None
    problem = client.get("/v1/job").json()
    assert client.get(f"{proxy.url}{problem['type']}").status_code == 200
    if not model:
        dataset = upload(client, data / "cancer.csv", target="diagnosis")
        spec = example_spec("cancer-table", dataset)
        spec["train"] = {**spec.get("train", {}), "epochs": 2}
        job = submit(client, spec)
        model.update(job=job, spec=spec, **wait_until(client, job, "succeeded")["result"])
    # a part of a file
    files = f"/v1/jobs/{model['job']}/artifacts"
    place = f"{files}/{client.get(files).json()['data'][0]['name']}"
    whole, part = client.get(place), client.get(place, headers={"Range": "bytes=10-99"})
    assert (part.status_code, part.content) == (206, whole.content[10:100])
    # a prediction, which a worker answers
    row = dict(zip(*(line.split(",") for line in body.decode().splitlines()[:2]), strict=True))
    row.pop("diagnosis")
    answer = client.post(f"/v1/models/{model['model']}/predict", json={"inputs": [row]})
    assert answer.status_code == 200, answer.text
    # events as they come: the job goes on while its first rows are read, and so does the long poll
    spec = {**model["spec"], "train": {"epochs": 100_000}, "early_stop": [{"kind": "diverged"}]}
    job = submit(client, spec)
    ticket = client.post("/v1/stream-tickets", json={"path": f"/v1/jobs/{job}/stream"}).json()
    with proxy.client("") as browser, httpx_sse.connect_sse(browser, "GET", f"{proxy.url}{ticket['url']}") as stream:
        kinds = itertools.takewhile(lambda kind: kind != "metric", (event.event for event in stream.iter_sse()))
        assert "event" in list(kinds)
        poll = client.get(f"/v1/jobs/{job}/metrics", params={"wait": 20}).json()
        assert poll["data"]
        assert client.get(f"/v1/jobs/{job}").json()["state"] == "running"
    client.post(f"/v1/jobs/{job}/cancel")
    wait_until(client, job, "cancelled")
    # the proxy notes a stream when it has seen that the client is gone
    stream_line = f"/v1/jobs/{job}/stream"
    wait_for(lambda: stream_line in proxy.access_log.read_text(), seconds=60, what="the stream in the proxy's log")
    log = proxy.access_log.read_text()
    assert "tk_" not in log
    assert ticket["ticket"] not in log


@PROXIES
def test_killing_one_process_under_load_loses_nothing(program: str, tmp_path: Path, migrated_sqlite: Path) -> None:
    shutil.copyfile(migrated_sqlite, tmp_path / "trainkit.db")
    apis = [AttackedApi(tmp_path, tmp_path / "trainkit.db", TRAINKIT_ROOT_PATH=ROOT_PATH) for _ in range(2)]
    try:
        (tmp_path / program).mkdir()
        with reverse_proxy(program, tmp_path / program, [api.port for api in apis]) as proxy:
            kill_under_load(proxy, apis)
    finally:
        for api in apis:
            api.stop()


def kill_under_load(proxy: ReverseProxy, apis: list[AttackedApi]) -> None:
    key, dataset = apis[0].key(), ""
    with apis[0]._served() as served:
        dataset = served.ready_dataset()
    accepted: dict[str, str] = {}
    failures: list[str] = []
    killed = threading.Event()

    def submit_jobs(name: str) -> None:
        """Submit jobs until some were accepted after the kill; each is sent until it is answered."""
        after = 0
        with proxy.client(key) as client:
            for number in range(200):
                sent = f"{name}-{number}"
                body = {"dataset": dataset, "model": {"kind": "mlp"}, "name": sent}
                for _ in range(60):
                    try:
                        answer = client.post("/v1/jobs", json=body, headers={"Idempotency-Key": sent})
                    except httpx.HTTPError:
                        failures.append("connection")
                        continue
                    if answer.status_code == 201:
                        accepted[sent] = answer.json()["id"]
                        break
                    assert answer.status_code in (429, 502, 503, 504), answer.text
                    failures.append(f"{answer.status_code} {answer.text[:80]}")
                    time.sleep(0.1)
                else:
                    raise AssertionError(f"{sent} was never answered: {failures}")
                after += killed.is_set()
                if after >= 5:
                    return

    followed, seen = apis[0].queued_job(), []

    def follow() -> None:
        """Read one job's stream to its end; where it breaks off, go on behind the last event."""
        last = "0"
        for _ in range(60):
            try:
                with (
                    proxy.client(key, **{"Last-Event-ID": last}) as client,
                    httpx_sse.connect_sse(client, "GET", f"/v1/jobs/{followed}/stream") as stream,
                ):
                    for event in stream.iter_sse():
                        last = event.id
                        seen.append(event)
                        if event.event == "end":
                            return
            except (httpx.HTTPError, httpx_sse.SSEError):
                time.sleep(0.1)

    threads = [threading.Thread(target=submit_jobs, args=(f"client{number}",)) for number in range(3)]
    threads += [threading.Thread(target=follow)]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(accepted) >= 20 and bool(seen), what="some accepted jobs")
    apis[1].process.send_signal(signal.SIGKILL)
    apis[1].process.wait()
    killed.set()
    for thread in threads[:-1]:
        thread.join(timeout=120)
    with proxy.client(key) as client:
        assert client.post(f"/v1/jobs/{followed}/cancel").status_code == 200
        threads[-1].join(timeout=60)
        assert not [thread for thread in threads if thread.is_alive()]
        names = []
        after: str | None = None
        while True:
            page = client.get("/v1/jobs", params={"limit": 100, **({"after": after} if after else {})}).json()
            names += [(job["name"], job["id"]) for job in page["data"] if job["id"] != followed]
            after = page["next"]
            if not page["has_more"]:
                break
    assert dict(names) == accepted
    assert len(names) == len(accepted)  # and nothing twice
    states = [event.json().get("to") for event in seen if event.event == "event"]
    assert states == ["queued", "cancelled"]
    assert [event.event for event in seen][-1] == "end"
