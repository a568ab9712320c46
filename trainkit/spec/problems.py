"""Spec errors for people: where (JSON pointer), what, and what to do. All of them at once."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core.core_schema import ErrorType

from trainkit.spec.synonyms import suggest_field, suggest_kind
from trainkit.spec.torchvision_architectures import TORCHVISION_CLASSIFIERS

RULES: dict[str, str] = {
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float", "int_parsing_size"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing", "decimal_type", "decimal_parsing"), "a number"),
    "finite_number": "a finite number",
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    **dict.fromkeys(("string_type", "string_sub_type", "string_unicode"), "text"),
    **dict.fromkeys(("list_type", "tuple_type", "set_type", "iterable_type", "frozen_set_type"), "a list"),
    **dict.fromkeys(("dict_type", "mapping_type", "model_type", "model_attributes_type"), "an object"),
    "greater_than": "above {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "below {lt}",
    "less_than_equal": "at most {le}",
    "multiple_of": "a multiple of {multiple_of}",
    "string_too_short": "text of at least {min_length} characters",
    "string_too_long": "text of at most {max_length} characters",
    "string_pattern_mismatch": "text that matches the pattern {pattern}",
    "too_short": "a list or object of at least {min_length} items",
    "too_long": "a list or object of at most {max_length} items",
    "none_required": "null",
    **dict.fromkeys(("literal_error", "enum", "const"), "one of {expected}"),
    **dict.fromkeys(
        (
            "datetime_type",
            "datetime_parsing",
            "datetime_from_date_parsing",
            "timezone_aware",
            "datetime_object_invalid",
        ),
        "a time such as 2026-01-31T12:00:00Z",
    ),
    **dict.fromkeys(
        ("url_type", "url_parsing", "url_scheme", "url_too_long"), "an address such as https://example.org/x"
    ),
    "json_invalid": "JSON",
    "value_error": "",
    "missing": "",
    "extra_forbidden": "",
    "union_tag_invalid": "an object of a known kind",
    "union_tag_not_found": "an object with a `kind`",
}
"""pydantic's type of an error -> what the value must be. Its own words stay inside: they speak of Python's types."""
MAX_PLACES, MORE_ERRORS = 100, "more_errors"
"""Wrong places that are explained, and the code of the item that counts the rest: a hint costs a millisecond."""
SHOWN = 60
"""Characters of a wrong value in a message."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a spec. `code` is stable, `pointer` is RFC 6901."""

    pointer: str
    code: str
    message: str
    hint: str = ""

    def as_dict(self) -> dict[str, str]:
        """The wire form."""
        return asdict(self)


class SpecError(ValueError):
    """A spec that cannot be trained, with every problem found."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(f"{p.pointer or '/'}: {p.message}" for p in self.problems))


def pointer(parts: Iterable[object]) -> str:
    """RFC 6901 JSON pointer of a path; '' is the whole document."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def pointer_tokens(pointer: str) -> list[str]:
    """The steps of an RFC 6901 JSON pointer, unescaped: the inverse of `pointer`."""
    return [token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:]]


def problems_from_validation(error: ValidationError, document: Any, model: type[BaseModel]) -> list[Problem]:
    """Translate pydantic's errors into problems whose pointers address the submitted document."""
    return problems_of(error.errors(include_url=False), document, model)


def problems_of(items: Iterable[Mapping[str, Any]], document: Any, model: type[BaseModel]) -> list[Problem]:
    """The same of single errors: `{type, loc, msg, input, ctx}`, as pydantic and FastAPI have them."""
    by_place: dict[str, list[Mapping[str, Any]]] = {}
    for item in items:
        by_place.setdefault(pointer(_document_path(item["loc"], document)), []).append(item)
    wrong = list(by_place.values())
    found = [problem for together in wrong[:MAX_PLACES] for problem in _problems(together, document, model)]
    if (hidden := len(wrong) - MAX_PLACES) > 0:
        message = f"{hidden} more places are wrong; they are not listed"
        found.append(Problem("", MORE_ERRORS, message, "Correct these first."))
    return found


def _problems(items: Sequence[Mapping[str, Any]], document: Any, model: type[BaseModel]) -> Iterator[Problem]:
    """The problems of one place: the forms that a value may have there make one."""
    broken_rules = [item for item in items if item["type"] == "value_error"]
    # a value that has one of the forms and breaks its rule need not have the others
    items = broken_rules or items
    forms = [item for item in items if _is_form(item, items)]
    if len(forms) > 1:
        first = _problem(forms[0], document, model)
        subject = _subject(_document_path(forms[0]["loc"], document))
        given = shown(forms[0].get("input"))
        expected = list(dict.fromkeys(rule(item) for item in forms))
        yield replace(first, code="wrong_type", message=f"{subject} must be {' or '.join(expected)}; got {given}")
        items = [item for item in items if item not in forms]
    for item in items:
        yield _problem(item, document, model)


def _is_form(item: Mapping[str, Any], items: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a union tried the value as this type, among others."""
    return len(items) > 1 and bool(RULES.get(item["type"])) and not item["type"].startswith("union_tag")


def _problem(item: Mapping[str, Any], document: Any, model: type[BaseModel]) -> Problem:
    path = _document_path(item["loc"], document)
    kind, context = item["type"], item.get("ctx", {})
    where = pointer(path)
    if kind == "extra_forbidden":
        name = str(path[-1]) if path else ""
        known = _known_fields(item["loc"][:-1], model)
        section = ".".join(str(step) for step in path[:-1] if not isinstance(step, int))
        hint = suggest_field(name, section, sorted(known), _spec_fields(model))
        if not hint.startswith("Did"):
            hint = f"{hint} Known fields: {', '.join(sorted(known))}." if known else hint or "Remove it."
        others = _kinds_with(name, item["loc"][:-1], model)
        if others:  # no typo, but a choice that belongs to another kind, such as spatial dropout in an mlp
            hint = f'"{name}" belongs to {", ".join(others)}. {hint}'
        return Problem(where, "unknown_field", f'unknown field "{name}"', hint.strip())
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        expected = [tag for m in _models_at(item["loc"], model) if (tag := _kind_of(m))]
        listing = f"Known kinds: {', '.join(expected)}." if expected else "See /v1/catalog."
        if kind == "union_tag_not_found":
            return Problem(where, "missing_kind", "`kind` is missing", listing)
        value = _value_at(document, path)
        word = value.get("kind") if isinstance(value, Mapping) else value
        words = [*expected, *(TORCHVISION_CLASSIFIERS if "torchvision" in expected else ())]
        hint = " ".join(part for part in (suggest_kind(word, words) if isinstance(word, str) else "", listing) if part)
        place = where if isinstance(value, str) else f"{where}/kind"
        return Problem(place, "unknown_kind", f"unknown kind {shown(word)}", hint)
    if kind == "missing":
        name = str(item["loc"][-1]) if item["loc"] else ""
        return Problem(where, "missing_field", f'"{name}" is required', "Add it.")
    if kind in ("literal_error", "enum"):
        expected = choices_of(item)
        word = item.get("input")
        hints = (suggest_kind(word, expected) if isinstance(word, str) else "", f"Choices: {', '.join(expected[:40])}.")
        message = f"{shown(word)} is not one of the choices"
        return Problem(where, "unknown_value", message, " ".join(part for part in hints if part))
    hint = _meaning(item["loc"], model)
    if kind == "model_attributes_type" and (
        tags := [tag for m in _models_at(item["loc"], model) if (tag := _kind_of(m))]
    ):
        hint = f"Known kinds: {', '.join(tags)}."
    if kind == "string_pattern_mismatch":
        hint = f"{suggest_kind(str(item.get('input')), re.findall('[a-z]+', context['pattern']))} {hint}".strip()
    code = "invalid_value" if kind == "value_error" else kind if kind in RULES else "invalid_value"
    return Problem(where, code, sentence(item, path), hint)


def rule(item: Mapping[str, Any]) -> str:
    """What the value of a pydantic error must be, as the end of "must be ..."."""
    context = {**item.get("ctx", {}), "expected": ", ".join(choices_of(item))}
    return RULES.get(item["type"], "of another form").format(**context) or "of another form"


def sentence(item: Mapping[str, Any], path: Sequence[int | str]) -> str:
    """What is wrong, of one of pydantic's errors at a place: subject, rule, and the value at hand."""
    name = path[-1] if path else ""
    match item["type"]:
        case "value_error":
            return str(item["msg"]).removeprefix("Value error, ")
        case "missing":
            return f'"{name}" is required' if name else "the body is missing"
        case "extra_forbidden":
            return f'unknown field "{name}"'
        case kind if kind not in RULES and kind not in _types_of_pydantic():  # a check of ours, in its own words
            return str(item["msg"])
        case "json_invalid":
            return f"the body is not JSON: {item.get('ctx', {}).get('error', '')}"
        case _:
            subject = f'the key "{name}"' if item["loc"][-1:] == ("[key]",) else _subject(path)
            return f"{subject} must be {rule(item)}; got {shown(item.get('input'))}"


@cache
def _types_of_pydantic() -> frozenset[str]:
    return frozenset(get_args(ErrorType))


def _subject(path: Sequence[int | str]) -> str:
    """The field, or the item of the field, at a place."""
    names = [step for step in path if isinstance(step, str)]
    name = f"`{names[-1]}`" if names else "the body"
    return f"item {path[-1]} of {name}" if names and isinstance(path[-1], int) else name


def choices_of(item: Mapping[str, Any]) -> list[str]:
    """The words of a choice that an error is about."""
    expected = str(item.get("ctx", {}).get("expected", ""))
    return [word.strip(" '") for word in expected.replace(" or ", ", ").split(",")] if expected else []


def shown(value: Any) -> str:
    """A value as JSON has it, cut to a length that fits into a sentence."""
    if isinstance(value, bytes):
        return "bytes" if value else "nothing"
    try:
        text = json.dumps(value, ensure_ascii=False, default=_kind_of_file)
    except (TypeError, ValueError):
        return "something else"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]} ..."


def _kind_of_file(value: Any) -> str:
    return "file" if hasattr(value, "read") or hasattr(value, "filename") else "something else"


def _value_at(document: Any, path: Sequence[int | str]) -> Any:
    for step in path:
        document = document[step] if not isinstance(document, str) else document
    return document


@cache
def _spec_fields(model: type[BaseModel]) -> tuple[str, ...]:
    """Paths of all fields, section by section, of a model that is a job spec; none of another."""
    if not {"dataset", "model", "optimizer"} <= set(model.model_fields):
        return ()
    sections = {name: _models_in(field.annotation) for name, field in model.model_fields.items()}
    below = [f"{name}.{field}" for name, models in sections.items() for m in models for field in m.model_fields]
    return tuple(dict.fromkeys([*sections, *below]))


def _meaning(loc: Sequence[int | str], model: type[BaseModel]) -> str:
    """What the field at `loc` says of itself, else where its schema stands."""
    names = [step for step in loc if isinstance(step, str)]
    for end in range(len(names), 0, -1):  # tags of unions may follow the field's own name
        for candidate in _models_at(names[: end - 1], model):
            field = candidate.model_fields.get(names[end - 1])
            if field is not None and field.description:
                first, *_ = field.description.split("\n\n")
                return f"`{names[end - 1]}`: {' '.join(first.split())}"
    return f"GET {'/v1/catalog' if _spec_fields(model) else '/openapi.json'} shows every field's schema."


def _document_path(loc: Sequence[int | str], document: Any) -> list[int | str]:
    """Drop the union tags that pydantic puts into `loc`: keep only steps that exist in the document, and the last."""
    if document is None:  # what is no document, such as query parameters
        return [step for step in loc if isinstance(step, int) or "[" not in step]
    path: list[int | str] = []
    node = document
    for position, step in enumerate(loc):
        last = position == len(loc) - 1
        if isinstance(node, Mapping):
            if step in node:
                path.append(step)
                node = node[step]
            elif last and isinstance(step, str) and not _is_tag(step, node):
                path.append(step)
        elif isinstance(node, Sequence) and not isinstance(node, str) and isinstance(step, int) and step < len(node):
            path.append(step)
            node = node[step]
    return path


def _is_tag(step: str, node: Mapping[str, Any]) -> bool:
    return node.get("kind") == step or "[" in step


def _known_fields(loc: Sequence[int | str], model: type[BaseModel]) -> set[str]:
    """Field names of the sub-model at `loc`."""
    return set().union(*(m.model_fields.keys() for m in _models_at(loc, model)))


def _kinds_with(name: str, loc: Sequence[int | str], model: type[BaseModel]) -> list[str]:
    """The kinds that have the field, of the union whose member stands at `loc`."""
    siblings = _models_at(loc[:-1], model) if loc else []
    return [kind for m in siblings if name in m.model_fields and (kind := _kind_of(m))]


def _models_at(loc: Sequence[int | str], model: type[BaseModel]) -> list[type[BaseModel]]:
    """The models that the document may hold at `loc`, found by walking annotations."""
    models: list[type[BaseModel]] = [model]
    for step in loc:
        if isinstance(step, int):
            continue
        tagged = [m for m in models if _kind_of(m) == step]
        if tagged:
            models = tagged
            continue
        following: list[type[BaseModel]] = []
        for candidate in models:
            field = candidate.model_fields.get(step)
            if field is not None:
                following.extend(_models_in(field.annotation))
        models = following or models
    return models


def _kind_of(model: type[BaseModel]) -> str | None:
    field = model.model_fields.get("kind")
    # a request may have a field of that name that is no discriminator, and no default
    return field.default if field is not None and isinstance(field.default, str) else None


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in getattr(annotation, "__args__", ()) for model in _models_in(argument)]
