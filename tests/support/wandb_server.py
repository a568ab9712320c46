"""A server on loopback that answers W&B's own uploader (`wandb sync`), and keeps what it sends."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

KEY = "k" * 40
SYNC_SECONDS = 90


@dataclass
class Uploaded:
    """What arrived: the rows of the history in their order, and the run."""

    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None

    def take_stream(self, body: dict[str, Any]) -> None:
        """Keep a request to the run's file stream."""
        for name, part in body.get("files", {}).items():
            lines = [json.loads(line) for line in part["content"]]
            if name == "wandb-history.jsonl":
                assert part["offset"] == len(self.history), "a line was sent twice"
                self.history += lines
            elif name == "wandb-summary.json":
                self.summary = lines[-1]
        if body.get("complete"):
            self.exit_code = body["exitcode"]

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """Answer a GraphQL request as a server without optional features does."""
        query, variables = body["query"], body.get("variables") or {}
        if "upsertBucket" in query:
            self.run |= {name: value for name, value in variables.items() if value is not None}
            project = {"name": variables.get("project") or "p", "entity": {"name": "ann"}}
            run = {"id": "cnVu", "name": variables.get("name"), "displayName": "", "config": None, "project": project}
            run |= {"sweepName": None, "historyLineCount": 0}
            return {"upsertBucket": {"bucket": run, "inserted": True}}
        if "viewer" in query:
            return {
                "viewer": {"id": "dXNlcg==", "entity": "ann", "username": "ann", "flags": "{}", "teams": {"edges": []}}
            }
        return {"serverInfo": None, "model": None}


@contextmanager
def wandb_server() -> Iterator[tuple[str, Uploaded]]:
    """A server for the time of the block; its address and what it was sent."""
    uploaded, lock = Uploaded(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            with lock:
                found: dict[str, Any] = {}
                if self.path == "/graphql":
                    found = {"data": uploaded.answer(json.loads(body))}
                elif self.path.endswith("/file_stream"):
                    uploaded.take_stream(json.loads(body))
            answer = json.dumps(found).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", uploaded
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def sync(folder: Path, home: Path) -> Uploaded:
    """Upload a run's folder with `wandb sync`; what arrived."""
    home.mkdir(exist_ok=True)
    with wandb_server() as (url, uploaded):
        variables = {"WANDB_BASE_URL": url, "WANDB_API_KEY": KEY, "WANDB_ERROR_REPORTING": "false", "HOME": str(home)}
        command = [sys.executable, "-m", "wandb", "sync", "--include-synced", str(folder)]
        run = {"cwd": home, "env": {**os.environ, **variables}, "timeout": SYNC_SECONDS, "check": False}
        done = subprocess.run(command, capture_output=True, text=True, **run)  # type: ignore[call-overload]
        assert done.returncode == 0, done.stderr
        assert uploaded.exit_code is not None, done.stderr
    return uploaded
