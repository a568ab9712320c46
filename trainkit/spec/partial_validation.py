"""What else is wrong with a document that does not parse: its sound parts are checked against the dataset all the same."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import ValidationError

from trainkit.spec.facts import DatasetFacts
from trainkit.spec.job import JobSpec
from trainkit.spec.problems import Problem, SpecError
from trainkit.spec.resolve import parse_spec, resolve

STAND_INS: dict[str, dict[str, Any]] = {
    "augment": {"kind": "noise", "std": 0},
    "preprocess": {"kind": "zero_mean"},
    "early_stop": {"kind": "diverged"},
    "model": {"kind": "linear"},
}
"""What takes the place of an unreadable part, so that its neighbours keep their positions in the list."""


def check_spec(document: Any, facts: DatasetFacts) -> JobSpec:
    """Parse a document, and check it against its dataset. Raises SpecError with the problems of both kinds at once."""
    try:
        spec = parse_spec(document)
    except SpecError as error:
        raise SpecError([*error.problems, *further_problems(document, error.problems, facts)]) from None
    resolve(spec, facts)
    return spec


def further_problems(document: Any, known: Sequence[Problem], facts: DatasetFacts) -> list[Problem]:
    """What the dataset forbids in the parts of a document that parse, beside the `known` problems of those that do not."""
    spec = drop_invalid_fields(document, known)
    if spec is None:
        return []
    try:
        resolve(spec, facts)
    except SpecError as error:
        return [problem for problem in error.problems if not _touches(problem.pointer, known)]
    return []


def drop_invalid_fields(document: Any, known: Iterable[Problem]) -> JobSpec | None:
    """The spec without the parts that `known` points at; None when the dataset is not named or nothing is left."""
    if not isinstance(document, dict):
        return None
    sound = copy.deepcopy(document)
    places = [_steps(problem.pointer) for problem in known]
    for place in places:
        _without(sound, place)
    try:
        return JobSpec.model_validate(sound)
    except ValidationError as error:
        # A part may be unusable without the field that was taken out: then all of it goes.
        for part in {str(item["loc"][0]) for item in error.errors() if item["loc"]}:
            sound.pop(part, None)
            if part == "model":
                sound[part] = STAND_INS[part]
    try:
        return JobSpec.model_validate(sound)
    except ValidationError:
        return None


def _steps(pointer: str) -> list[str]:
    return [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]


def _without(document: dict[str, Any], place: Sequence[str]) -> None:
    """Take one place out of the document, or put a stand-in there where others count on its position."""
    if not place or place[0] not in document:
        return
    top = place[0]
    part = document[top]
    if top in STAND_INS and isinstance(part, list) and len(place) > 1 and int(place[1]) < len(part):
        part[int(place[1])] = STAND_INS[top]
    elif top == "model" and (len(place) == 1 or place[1] == "kind"):
        document[top] = STAND_INS[top]
    elif isinstance(part, dict) and len(place) > 1:
        part.pop(place[1], None)
    else:
        del document[top]


def _touches(pointer: str, known: Iterable[Problem]) -> bool:
    """Whether a problem lies in, or around, a part that was taken out: then it may be about the stand-in."""
    for problem in known:
        place = "/model" if problem.pointer == "/model/kind" else problem.pointer
        if f"{pointer}/".startswith(f"{place}/") or f"{place}/".startswith(f"{pointer}/"):
            return True
    return False
