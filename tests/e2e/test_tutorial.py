"""The commands of the README and of the tutorial, run as they stand there against `trainkit up`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.markdown import ROOT, Fence, commands_of, fences_of
from tests.support.up import Installation

PAGES = ("README.md", "docs/tutorial/index.md")
SECONDS = 240
"""Bound of one page's commands; they take less than a minute on a quiet machine."""
MARK = "@@ block "
PRELUDE = 'set -euo pipefail\ncurl() { command curl --max-time 60 "$@"; }\n'


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
    output = installation.run(PRELUDE + "\n".join(script), SECONDS)
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
