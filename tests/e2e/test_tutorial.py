"""The commands of the README and of the tutorial, run as they stand there against `trainkit up`."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.markdown import ROOT, Fence, commands_of, fences_of
from tests.support.stack import FAST, TRAINKIT, free_port, wait_for

PAGES = ("README.md", "docs/tutorial/index.md")
SECONDS = 240
"""Bound of one page's commands; they take less than a minute on a quiet machine."""
MARK = "@@ block "
PRELUDE = 'set -euo pipefail\ncurl() { command curl --max-time 60 "$@"; }\n'


@dataclass(frozen=True)
class Installation:
    """A folder with the examples, `.venv` and `.home`, as a reader's own folder looks."""

    folder: Path
    port: int

    def run(self, script: str) -> str:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TRAINKIT_")}
        environment["TRAINKIT_URL"] = f"http://127.0.0.1:{self.port}"
        done = subprocess.run(
            ["bash", "-c", PRELUDE + script.replace(":8321", f":{self.port}")],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        return done.stdout


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """`trainkit up` in a new folder, as `make up` starts it."""
    folder, port = tmp_path_factory.mktemp("tutorial"), free_port()
    (folder / "examples").symlink_to(ROOT / "examples")
    (folder / ".venv").symlink_to(Path(sys.prefix))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TRAINKIT_")}
    with (folder / "up.log").open("wb") as log:
        up = subprocess.Popen(
            [TRAINKIT, "up", "--home", str(folder / ".home"), "--port", str(port)],
            cwd=folder,
            env={**environment, **FAST},
            stdout=log,
            stderr=log,
        )

    def ready() -> bool:
        assert up.poll() is None, (folder / "up.log").read_text()
        try:
            return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=2).status_code == 200
        except httpx.HTTPError:
            return False

    try:
        wait_for(lambda: ready() and (folder / ".home/api-key").exists(), what="trainkit up")
        yield Installation(folder, port)
    finally:
        up.send_signal(signal.SIGTERM)
        up.wait(timeout=90)


def runs(fence: Fence) -> bool:
    """Whether a block runs here: one of `make` alone sets up and starts what the fixture has started."""
    return fence.language == "python" or (
        fence.language == "bash" and any(command[0] != "make" for command in commands_of(fence.text))
    )


@pytest.mark.e2e
@pytest.mark.parametrize("path", PAGES)
def test_commands_of_the_page_run_in_order(installation: Installation, path: str) -> None:
    fences = fences_of((ROOT / path).read_text(encoding="utf-8"), path)
    script = []
    for number, fence in enumerate(fences):
        if runs(fence):
            text = fence.text if fence.language == "bash" else f".venv/bin/python - <<'PYTHON'\n{fence.text}PYTHON\n"
            script.append(f"printf '\\n{MARK}{number}\\n'\n{text}")
    output = installation.run("\n".join(script))
    outputs = {int(part.split("\n", 1)[0]): part.split("\n", 1)[1] for part in output.split(MARK)[1:]}
    answered = 0
    for number, fence in enumerate(fences):
        if fence.title == "Response" and number - 1 in outputs:
            sample = json.loads(fence.text)
            found = list(documents(outputs[number - 1]))
            assert any(has_form(document, sample) for document in found), f"{fence}: {found}"
            answered += 1
    assert answered > 0


def documents(text: str) -> Iterator[Any]:
    """Every JSON object in the output of a block."""
    decoder, start = json.JSONDecoder(), 0
    while (match := re.compile(r"\{").search(text, start)) is not None:
        try:
            document, end = decoder.raw_decode(text[match.start() :])
        except ValueError:
            start = match.end()
            continue
        yield document
        start = match.start() + end


def has_form(found: Any, sample: Any) -> bool:
    """Whether a document has the fields and types of a sample; codes and labels must be equal."""
    if isinstance(sample, dict):
        return isinstance(found, dict) and all(
            name in found and (found[name] == value if name in ("code", "label") else has_form(found[name], value))
            for name, value in sample.items()
        )
    if isinstance(sample, list):
        return isinstance(found, list) and all(any(has_form(entry, expected) for entry in found) for expected in sample)
    return sample is None or type(found) is type(sample) or {type(found), type(sample)} == {int, float}
