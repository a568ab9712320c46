"""References in job specs and plans: resolved once, when they are submitted, to the ids that the record keeps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.orm import Session

from service.datasets.references import DATASETS
from service.models.references import MODELS
from service.registry.names import ID
from service.registry.repository import Resource
from service.registry.service import UnknownReferenceError, resolve_reference
from trainkit.spec import Problem as SpecProblem
from trainkit.spec.problems import pointer, pointer_tokens

PLACES: tuple[tuple[tuple[str, ...], Resource[Any]], ...] = (
    (("dataset",), DATASETS),
    (("dataset", "id"), DATASETS),
    (("start_from", "model"), MODELS),
    (("start_from", "dataset"), DATASETS),
    (("model", "init", "model"), MODELS),
    (("model", "init", "dataset"), DATASETS),
    (("model", "members", "*"), MODELS),
    (("adapt", "target_dataset"), DATASETS),
)
"""Where a job spec names a dataset or a model; `*` stands for every entry of a list."""
MOST_MEMBERS = 64
"""As many as an ensemble has at most."""


@dataclass(slots=True)
class ResolvedReferences:
    """A document with an id in place of each reference by name."""

    document: Any
    names: dict[str, str] = field(default_factory=dict)
    """JSON pointer -> the reference as it was written."""
    problems: list[SpecProblem] = field(default_factory=list)
    """Of references that name nothing; they are left as they are."""


def resolve_spec(session: Session, project_id: str, document: Any) -> ResolvedReferences:
    """Resolve what a job spec, or a patch of one, names. A document that is none comes back as it is."""
    found = ResolvedReferences(document)
    for path, resource in PLACES:
        for tokens, text in _at(document, path):
            if ID.fullmatch(text) or text.startswith("job_"):
                continue  # whoever uses an id finds out whether it is there
            place = pointer(tokens)
            try:
                identifier = resolve_reference(session, project_id, resource, text).id
            except UnknownReferenceError as error:
                code, message = f"unknown_{resource.kind}", error.message
                found.problems.append(SpecProblem(place, code, message, error.hint))
                continue
            if identifier != text:
                found.document = _replaced(found.document, tokens, identifier)
                found.names[place] = text
    return found


def resolve_plan(session: Session, project_id: str, document: Mapping[str, Any]) -> ResolvedReferences:
    """Resolve what an experiment's plan names: in its spec, in the patches of its variants, in the values of its space."""
    found = ResolvedReferences(document)

    def take(tokens: Sequence[str], part: ResolvedReferences, value: Any) -> None:
        prefix = pointer(tokens)
        if part.names:
            found.document = _replaced(found.document, tokens, value)
        found.names |= {prefix + place: text for place, text in part.names.items()}
        found.problems += [SpecProblem(prefix + one.pointer, one.code, one.message, one.hint) for one in part.problems]

    spec = resolve_spec(session, project_id, document.get("spec"))
    take(["spec"], spec, spec.document)
    for name, patch in _items(document.get("variants")):
        variant = resolve_spec(session, project_id, patch)
        take(["variants", name], variant, variant.document)
    for place, values in _items(document.get("space")):
        path = pointer_tokens(place) if isinstance(place, str) else []
        for index, value in enumerate(values if isinstance(values, list) and path else ()):
            tried = resolve_spec(session, project_id, _nested(path, value))
            inner = _value_at(tried.document, path)
            depth = len(pointer(path))
            tried.names = {where[depth:]: text for where, text in tried.names.items()}
            tried.problems = [
                SpecProblem(one.pointer[depth:], one.code, one.message, one.hint) for one in tried.problems
            ]
            take(["space", place, str(index)], tried, inner)
    return found


def as_written(document: Any, names: Mapping[str, str] | None) -> Any:
    """Return the document with the references as the client wrote them."""
    for place, text in (names or {}).items():
        document = _replaced(document, pointer_tokens(place), text)
    return document


def _at(document: Any, path: Sequence[str], before: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield (tokens, text) of the texts at a path."""
    if not path:
        if isinstance(document, str) and document:
            yield before, document
        return
    name, *rest = path
    if name == "*":
        entries = enumerate(document[:MOST_MEMBERS]) if isinstance(document, list) else _items(document)
        for key, value in entries:
            yield from _at(value, rest, (*before, str(key)))
    elif isinstance(document, Mapping) and name in document:
        yield from _at(document[name], rest, (*before, name))


def _items(value: Any) -> list[tuple[Any, Any]]:
    return list(value.items()) if isinstance(value, Mapping) else []


def _nested(path: Sequence[str], value: Any) -> Any:
    """An object that has the value at the path, and nothing else."""
    for token in reversed(path):
        value = {token: value}
    return value


def _value_at(document: Any, path: Sequence[str]) -> Any:
    for token in path:
        document = document[token]
    return document


def _replaced(document: Any, tokens: Sequence[str], value: Any) -> Any:
    """Return a copy with `value` at the place, which is there; what lies beside the way is shared, in its order."""
    if not tokens:
        return value
    first, *rest = tokens
    if isinstance(document, list | tuple):
        copied = list(document)
        copied[int(first)] = _replaced(copied[int(first)], rest, value)
        return copied
    return {**document, first: _replaced(document[first], rest, value)}
