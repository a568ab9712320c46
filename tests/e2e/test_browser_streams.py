"""A page of another origin in a real browser: it calls the API with a key, and follows a job with `EventSource`."""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.support.attacked_api import AttackedApi, request
from tests.support.chromium import chromium

FOLLOW = """
async ([api, key, path]) => {
  const headers = {Authorization: `Bearer ${key}`, 'Content-Type': 'application/json'};
  const refused = await fetch(`${api}/v1/jobs?limt=1`, {headers});
  const answer = await fetch(`${api}/v1/stream-tickets`, {method: 'POST', headers, body: JSON.stringify({path})});
  const {url} = await answer.json();
  const seen = await new Promise((resolve) => {
    const events = [], stream = new EventSource(api + url);
    for (const kind of ['event', 'metric', 'end']) {
      stream.addEventListener(kind, (event) => {
        events.push(kind);
        if (kind === 'end') { stream.close(); resolve(events); }
      });
    }
    stream.onerror = () => { stream.close(); resolve([...events, 'error']); };
  });
  return [refused.status, (await refused.json()).code, refused.headers.get('x-request-id') !== null, seen];
}
"""
READ = """
([api, key]) => fetch(`${api}/v1/jobs`, {headers: {Authorization: `Bearer ${key}`}})
  .then(() => 'read', () => 'blocked')
"""


class EmptyPage(BaseHTTPRequestHandler):
    """A page of another origin."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>app</title>")

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def pages() -> Iterator[list[str]]:
    """Two origins."""
    servers = [HTTPServer(("127.0.0.1", 0), EmptyPage) for _ in range(2)]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    yield [f"http://127.0.0.1:{server.server_port}" for server in servers]
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_named_origin_follows_a_job_and_another_reads_nothing(
    pages: list[str], tmp_path: Path, migrated_sqlite: Path
) -> None:
    shutil.copyfile(migrated_sqlite, tmp_path / "trainkit.db")
    api = AttackedApi(tmp_path, tmp_path / "trainkit.db", TRAINKIT_CORS_ORIGINS=pages[0])
    try:
        job = api.model() and api.queued_job()
        key, address = api.key(), f"http://localhost:{api.port}"
        with chromium() as browser:
            page = browser.new_page()
            page.goto(pages[0])
            threading.Timer(2, lambda: _cancel(api, key, job)).start()
            status, code, has_id, seen = page.evaluate(FOLLOW, [address, key, f"/v1/jobs/{job}/stream"])
            assert (status, code, has_id) == (422, "invalid_request", True)
            assert seen == ["event", "event", "end"]
            page.goto(pages[1])
            assert page.evaluate(READ, [address, key]) == "blocked"
        assert re.findall(r"\bst_[0-9a-z]{8}_[0-9]+_[0-9a-f]+|tk_\w+", api.log()) == []
    finally:
        api.stop()


def _cancel(api: AttackedApi, key: str, job: str) -> None:
    assert api.send(request("POST", f"/v1/jobs/{job}/cancel", key)).status == 200
