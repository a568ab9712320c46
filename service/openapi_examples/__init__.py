"""Examples of the OpenAPI document: `<operationId>.json`, one file an operation, recorded from a real service.

    {"requests": {media type: {title: value}}, "responses": {status: {media type: {title: value}}}}

`python -m tests.support.record_examples` writes them; `tests/service/test_openapi_examples.py` checks each against the
schema that it is an example of.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


def add_examples(operation: dict[str, Any], folder: Path = FOLDER) -> None:
    """Put the examples of an operation into its description, which stays as it is where there are none."""
    path = folder / f"{operation['operationId']}.json"
    if not path.exists():
        return
    examples = json.loads(path.read_text())
    places = [(operation.get("requestBody", {}).get("content", {}), examples.get("requests", {}))]
    for status, by_type in examples.get("responses", {}).items():
        places.append((operation["responses"].get(status, {}).get("content", {}), by_type))
    for content, by_type in places:
        for media_type, values in by_type.items():
            if media_type in content:
                content[media_type]["examples"] = {
                    _key(title): {"summary": title, "value": value} for title, value in values.items()
                }


def _key(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", title.lower()).strip("_")
