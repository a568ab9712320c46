"""Job documents as they come: JSON or YAML, bounded in size and depth, never more than plain data."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import isfinite
from typing import Annotated, Any

import yaml
from anyio import CapacityLimiter, to_thread
from fastapi import Depends, Request

from service.errors import HttpProblem
from service.problem_types import ProblemCode
from trainkit.spec.json_errors import json_reason
from trainkit.spec.problems import pointer, pointer_tokens

LIMIT = 1 << 18
DEPTH = 32
MAX_VALUES = 20_000
"""Values of one document. Each wrong one would be a problem in the answer."""
PARSERS = CapacityLimiter(2)
"""Threads that parse documents: they compete with the event loop for the interpreter."""
TYPES = ("application/json", "application/yaml")


def _body(schema: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {kind: {"schema": schema} for kind in TYPES}}}


SPEC_BODY = _body({"$ref": "#/components/schemas/JobSpec"})
"""How OpenAPI shows a body that `read_document` reads."""
JOB_BODY = _body({"$ref": "#/components/schemas/JobRequest"})
EXPERIMENT_BODY = _body({"$ref": "#/components/schemas/ExperimentSpec"})
LONG_NUMBER = re.compile(r"[-+]?[0-9][0-9a-fA-FxX_:.]{399,}")
"""What YAML may read as a number, with more digits than any number of 64 bits has."""
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
    return await to_thread.run_sync(parse, bytes(body), kind, limiter=PARSERS)


async def read_json_body(request: Request) -> None:
    """Parse a JSON body in a thread, so that `request.json()` has it ready. Raises 422 problems."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        return
    body = await request.body()
    if body:
        request._json = await to_thread.run_sync(parse, body, "application/json", limiter=PARSERS)


# libyaml where the wheel has it: the pure parser needs seconds for a large document
_SAFE_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
MAX_DIGITS = 40
"""Characters of a number; one of 64 bits has 20."""


class CoreSchemaLoader(_SAFE_LOADER):  # type: ignore[misc]
    """Reads plain scalars by the core schema of YAML 1.2, so that a document means the same in JSON and in YAML.

    YAML 1.1, which PyYAML implements, reads `1e-3` as text, `no` as false, `1:30` as 90 and `2026-01-31` as a date.
    """

    yaml_implicit_resolvers: dict[str, Any] = {}  # none of YAML 1.1


def _integer(loader: Any, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node)
    if len(text) > MAX_DIGITS:
        raise _too_many_digits()
    return int(text, 0) if text[:2] in ("0x", "0o") else int(text)


def _float(loader: Any, node: yaml.ScalarNode) -> float:
    # `.inf` and `.nan`; Python has no dot before them
    return float(re.sub(r"^([-+]?)\.(?=[in])", r"\1", loader.construct_scalar(node).lower()))


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
):
    CoreSchemaLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first)
CoreSchemaLoader.add_constructor("tag:yaml.org,2002:int", _integer)
CoreSchemaLoader.add_constructor("tag:yaml.org,2002:float", _float)

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
    _check_plain(document, count=itertools.count(1))
    return document


def _json(text: str, *, tolerant: bool) -> Any:
    try:
        return _Json().read(text, _refuse_constant)
    except json.JSONDecodeError as error:
        if tolerant:
            return _yaml(text)
        detail = f"The body is not JSON: {json_reason(error)}."
        raise HttpProblem(422, "not_json", f"{detail} For YAML send Content-Type: application/yaml.") from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError:  # digits beyond what Python turns into a number
        raise _too_many_digits() from None


def read_json(body: bytes) -> Any:
    """JSON as json reads it, NaN included. Raises ValueError, and a 422 problem for repeated keys."""
    return _Json().read(body)


class _Json:
    """Reads JSON and remembers which objects have a key twice: json itself keeps the last and says nothing."""

    def __init__(self) -> None:
        self.repeated: list[tuple[dict[str, Any], str]] = []

    def read(self, text: str | bytes, parse_constant: Callable[[str], Any] | None = None) -> Any:
        """The document. Raises a 422 problem with the place of each repeated key."""
        document = json.loads(text, parse_constant=parse_constant, object_pairs_hook=self._object)
        if self.repeated:
            raise _duplicate_keys([self._pointer(document, *one) for one in self.repeated[:20]])
        return document

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        built = dict(pairs)
        if len(built) < len(pairs):
            seen: set[str] = set()
            twice = [key for key, _ in pairs if key in seen or seen.add(key)]  # type: ignore[func-returns-value]
            self.repeated += [(built, key) for key in dict.fromkeys(twice)]
        return built

    def _pointer(self, document: Any, owner: dict[str, Any], key: str) -> str:
        """Where the key is; of an object that was itself dropped as a repeated key's value, the key alone."""
        waiting: list[tuple[Any, tuple[object, ...]]] = [(document, ())]
        while waiting:
            value, path = waiting.pop()
            if value is owner:
                return pointer((*path, key))
            if isinstance(value, dict):
                waiting += [(inner, (*path, name)) for name, inner in value.items()]
            elif isinstance(value, list):
                waiting += [(inner, (*path, index)) for index, inner in enumerate(value)]
        return pointer([key])


def _duplicate_keys(pointers: list[str], lines: list[int] | None = None) -> HttpProblem:
    places = [f", again in line {line}" for line in lines] if lines else [""] * len(pointers)
    errors = [
        {
            "pointer": where,
            "code": "duplicate_key",
            "message": f'the key "{pointer_tokens(where)[-1]}" is there twice{place}',
            "hint": "Keep one of them: it is not clear which is meant.",
        }
        for where, place in zip(pointers, places, strict=True)
    ]
    detail = "; ".join(f"{error['pointer']}: {error['message']}" for error in errors[:3])
    return HttpProblem(422, "duplicate_key", detail, errors=errors)


def _refuse_constant(name: str) -> Any:
    raise HttpProblem(422, "not_json", f"{name} is not JSON; every number is finite.")


def _yaml(text: str) -> Any:
    try:
        _check_events(text)
        return yaml.load(text, CoreSchemaLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"Line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise HttpProblem(422, "not_yaml", f"{where}{getattr(error, 'problem', None) or 'not YAML'}.") from None
    except RecursionError:
        raise HttpProblem(422, "not_yaml", "The YAML is nested too deeply.") from None
    except (ValueError, OverflowError):  # a number or date that Python refuses
        raise HttpProblem(
            422, "not_yaml", "A value of the YAML has the form of a number or date, but is none."
        ) from None


def _check_events(text: str) -> None:
    """Stop at what would make a small text a huge document, and at repeated keys, before anything is built of it."""
    open_nodes: list[_Node] = []
    pointers, lines = [], []
    for event in yaml.parse(text, CoreSchemaLoader):
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.AliasEvent):
            detail = f"Line {line}: YAML aliases (*name) are not taken. Write the value out."
            raise HttpProblem(422, "yaml_alias", detail)
        if isinstance(event, yaml.CollectionEndEvent):
            open_nodes.pop()
        if not isinstance(event, yaml.NodeEvent):
            continue
        if open_nodes and open_nodes[-1].repeats(event.value if isinstance(event, yaml.ScalarEvent) else None):
            pointers.append(pointer(node.place for node in open_nodes))
            lines.append(line)
        if getattr(event, "tag", None) not in (None, "!", "tag:yaml.org,2002:str"):
            raise HttpProblem(422, "yaml_tag", f"Line {line}: YAML tags (!name) are not taken. Leave it out.")
        if isinstance(event, yaml.ScalarEvent) and event.implicit[0] and LONG_NUMBER.fullmatch(event.value):
            shown = f"{event.value[:20]}... of {len(event.value)} characters"
            raise _number_too_large(tuple(node.place for node in open_nodes), shown)
        if isinstance(event, yaml.CollectionStartEvent):
            if len(open_nodes) == DEPTH:
                raise _too_deep()
            open_nodes.append(_Node(isinstance(event, yaml.MappingStartEvent)))
    if pointers:
        raise _duplicate_keys(pointers, lines)


@dataclass
class _Node:
    """A mapping or a list of a YAML text whose items are being read."""

    mapping: bool
    place: object = -1
    """The key or the index of the item at hand."""
    keys: set[object] = field(default_factory=set)
    key_next: bool = True

    def repeats(self, value: str | None) -> bool:
        """Take the next node of this one; whether it is a key that was there before. `value`: of a scalar."""
        if not self.mapping:
            self.place = int(str(self.place)) + 1
            return False
        is_key, self.key_next = self.key_next, not self.key_next
        if not is_key:
            return False
        known = value in self.keys
        self.place = value
        self.keys.add(value)
        return known and value is not None


def _check_plain(value: Any, path: tuple[object, ...] = (), *, count: Iterator[int]) -> None:
    """Refuse what JSON can say and a row of the database cannot hold, at its place."""
    if len(path) > DEPTH:
        raise _too_deep()
    if next(count) > MAX_VALUES:
        raise HttpProblem(422, "too_many_values", f"The document has more than {MAX_VALUES} values. Send less.")
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise _refused("key_not_text", path, f"The key {key!r} is not text. Put it in quotes.")
            _check_plain(key, path, count=count)
            _check_plain(item, (*path, key), count=count)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_plain(item, (*path, index), count=count)
    elif isinstance(value, str):
        if "\x00" in value or any(0xD800 <= ord(character) <= 0xDFFF for character in value):
            raise _refused("not_text", path, "A text holds a NUL or half of a surrogate pair. Leave it out.")
    elif isinstance(value, int) and not isinstance(value, bool):
        if abs(value) >= 2**63:
            raise _number_too_large(path, str(value) if abs(value) < 10**40 else f"of {value.bit_length()} bits")
    elif isinstance(value, float) and not isfinite(value):
        message = "Every number is finite: no infinity, no NaN, nothing beyond 1.8e308. Use a smaller one."
        raise _refused("not_finite", path, message)
    elif not isinstance(value, float | bool | type(None)):
        raise _refused("not_plain", path, f"{value!r} is of type {type(value).__name__}. Put it in quotes.")


def _number_too_large(path: tuple[object, ...], shown: str) -> HttpProblem:
    return _refused("number_too_large", path, f"The number {shown} does not fit 64 bits. Use a smaller one.")


def _refused(code: ProblemCode, path: tuple[object, ...], detail: str) -> HttpProblem:
    message, _, hint = detail.rpartition(". ")
    where = "".join(character if not 0xD800 <= ord(character) <= 0xDFFF else "\ufffd" for character in pointer(path))
    error = {"pointer": where, "code": code, "message": message[:1].lower() + message[1:], "hint": hint}
    return HttpProblem(422, code, detail, errors=[error])


def _too_many_digits() -> HttpProblem:
    return HttpProblem(422, "number_too_large", "A number has too many digits; 64 bits is the limit.")


def _too_deep() -> HttpProblem:
    return HttpProblem(422, "too_deep", f"The document is nested more than {DEPTH} levels deep.")
