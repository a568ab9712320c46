"""Job documents as they come: JSON or YAML, bounded in size and depth, never more than plain data."""

from __future__ import annotations

import json
from math import isfinite
from typing import Annotated, Any

import yaml
from anyio import to_thread
from fastapi import Depends, Request

from service.errors import HttpProblem

LIMIT = 1 << 18
DEPTH = 32
TYPES = ("application/json", "application/yaml")


def _body(schema: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {kind: {"schema": schema} for kind in TYPES}}}


_SPEC, _FROM_DIAGNOSIS = ({"$ref": f"#/components/schemas/{name}"} for name in ("JobSpec", "FromDiagnosisIn"))
SPEC_BODY = _body(_SPEC)
"""How OpenAPI shows a body that `read_document` reads."""
JOB_BODY = _body({"anyOf": [_SPEC, _FROM_DIAGNOSIS]})
EXPERIMENT_BODY = _body({"$ref": "#/components/schemas/ExperimentSpec"})
# libyaml where the wheel has it: the pure parser needs seconds for a large document
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
YAML_TYPES = ("application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml")


async def read_document(request: Request) -> Any:
    """The body as plain data. JSON unless the content type says YAML; a form type is tried as either."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LIMIT:
            raise HttpProblem(413, "too_large", f"A job spec has at most {LIMIT} bytes.")
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    # a large document takes a while: others are served meanwhile
    return await to_thread.run_sync(parse, bytes(body), kind)


Document = Annotated[Any, Depends(read_document)]
"""The body. It stands before the session in a signature, so that a client who sends slowly keeps no session waiting."""


def parse(body: bytes, kind: str) -> Any:
    """Bytes of that media type as plain data. Raises 422 problems."""
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise HttpProblem(422, "not_utf8", f"The body is not UTF-8 (byte {error.start}).") from None
    if "\x00" in text:
        raise HttpProblem(422, "not_text", "The body holds a NUL character.")
    document = _yaml(text) if kind in YAML_TYPES else _json(text, tolerant=kind != "application/json")
    _check_plain(document, 0)
    return document


def _json(text: str, *, tolerant: bool) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        if tolerant:
            return _yaml(text)
        detail = f"Line {error.lineno}, column {error.colno}: {error.msg}."
        raise HttpProblem(422, "not_json", f"{detail} For YAML send Content-Type: application/yaml.") from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError:  # digits beyond what Python turns into a number
        raise HttpProblem(422, "number_too_large", "A number has too many digits; 64 bits is the limit.") from None


def _refuse_constant(name: str) -> Any:
    raise HttpProblem(422, "not_json", f"{name} is not JSON; every number of a spec is finite.")


def _yaml(text: str) -> Any:
    try:
        _check_events(text)
        return yaml.load(text, LOADER)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"Line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise HttpProblem(422, "not_yaml", f"{where}{getattr(error, 'problem', None) or 'not YAML'}.") from None
    except (RecursionError, ValueError) as error:
        raise HttpProblem(422, "not_yaml", f"The YAML cannot be read: {error}.") from None


def _check_events(text: str) -> None:
    """Stop at what would make a small text a huge document, before anything is built of it."""
    depth = 0
    for event in yaml.parse(text, LOADER):
        if isinstance(event, yaml.AliasEvent):
            raise HttpProblem(422, "yaml_alias", "YAML aliases (*name) are not taken. Write the value out.")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEPTH:
                raise _too_deep()
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _check_plain(value: Any, depth: int) -> None:
    if depth > DEPTH:
        raise _too_deep()
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise HttpProblem(422, "key_not_text", f"The key {key!r} is not text. Put it in quotes.")
            _check_plain(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _check_plain(item, depth + 1)
    elif isinstance(value, str):
        if "\x00" in value or any(0xD800 <= ord(character) <= 0xDFFF for character in value):
            raise HttpProblem(422, "not_text", "A text holds a NUL or half of a surrogate pair.")
    elif isinstance(value, int) and not isinstance(value, bool):
        if abs(value) >= 2**63:
            raise HttpProblem(422, "number_too_large", f"The number {str(value)[:40]} does not fit 64 bits.")
    elif isinstance(value, float) and not isfinite(value):
        raise HttpProblem(
            422, "not_finite", "Every number of a spec is finite: no infinity, no NaN, nothing beyond 1.8e308."
        )
    elif not isinstance(value, float | bool | type(None)):
        raise HttpProblem(422, "not_plain", f"{value!r} is of type {type(value).__name__}. Put it in quotes.")


def _too_deep() -> HttpProblem:
    return HttpProblem(422, "too_deep", f"The document is nested more than {DEPTH} levels deep.")
