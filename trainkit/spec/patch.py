"""How a spec is changed by what differs: JSON merge patches (RFC 7396) and values at JSON pointers."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from trainkit.spec.base import ShortForm, as_list
from trainkit.spec.models import MODEL_SHORT_FORM
from trainkit.spec.problems import pointer_tokens
from trainkit.spec.split import SplitSpec

KINDS = {"model": MODEL_SHORT_FORM, "loss": ShortForm(), "optimizer": ShortForm(), "schedule": ShortForm()}
"""Sections of one kind."""
LISTS = ("preprocess", "preprocess_columns", "augment", "early_stop")
"""Sections that are lists of kinds."""


def full_form(document: Any) -> Any:
    """Return a spec, or a patch of one, with its short forms written out: `optimizer: adam` as {kind: adam}.

    What is no spec, and what is wrong in it, comes back as it is: `parse_spec` tells.
    """
    if not isinstance(document, Mapping):
        return document
    full = dict(document)
    for name, short_form in KINDS.items():
        if name in full:
            full[name] = short_form.write_out(full[name])
    for name in LISTS:
        if isinstance(steps := as_list(full.get(name)), list):
            full[name] = [ShortForm().write_out(step) for step in steps]
    if "model" in full:
        full["model"] = _full_model(full["model"])
    return full


def _full_model(model: Any) -> Any:
    """The model, and the encoders of a multimodal one, with the short forms in it written out."""
    if not isinstance(model, Mapping):
        return model
    full = dict(model)
    if isinstance(full.get("init"), str):
        full["init"] = ShortForm().write_out(full["init"])
    for name in ("image", "columns"):
        if name in full:
            full[name] = _full_model(MODEL_SHORT_FORM.write_out(full[name]))
    return full


def merge_patch(target: Any, patch: Any) -> Any:
    """A spec changed by a JSON merge patch: objects are merged, null removes, all else replaces (RFC 7396).

    Short forms are written out first. A part that gets another `kind` begins anew: fields of the old kind do not stay.
    """
    target, patch = full_form(target), full_form(patch)
    if isinstance(target, Mapping) and isinstance(patch, Mapping):
        target = _with_objects(target, patch)
    return _merged(target, patch)


def _with_objects(target: Mapping[str, Any], other: Mapping[str, Any]) -> Mapping[str, Any]:
    """The target with an object in place of each text where the other has an object."""
    texts = {name: target[name] for name in ("dataset", "split") if isinstance(target.get(name), str)}
    objects = {name: _as_object(name, text) for name, text in texts.items() if isinstance(other.get(name), Mapping)}
    return {**target, **objects}


def _as_object(name: str, text: str) -> Any:
    """The object that a dataset's id or the ratios of a split stand for."""
    if name == "dataset":
        return {"id": text}
    try:
        return SplitSpec.model_validate(text).model_dump(mode="json", exclude_unset=True)
    except ValidationError:
        return text


def _merged(target: Any, patch: Any) -> Any:
    if not isinstance(patch, Mapping):
        return copy.deepcopy(patch)
    merged = dict(target) if isinstance(target, Mapping) else {}
    if patch.get("kind") is not None and merged.get("kind") not in (None, patch["kind"]):
        merged = {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merged(merged.get(key), value)
    return merged


def replacing(old: Any, new: Mapping[str, Any]) -> dict[str, Any]:
    """The patch that makes `new` of the object `old`: what `new` does not have is removed, not merged."""
    removed = {key: None for key in old if key not in new} if isinstance(old, Mapping) else {}
    return {**removed, **new}


def with_value(document: Any, pointer: str, value: Any) -> Any:
    """`document` with `value` at a JSON pointer (RFC 6901); objects on the way are made, places in lists must be there.

    Another `kind` begins its part anew, as in `merge_patch`. Raises KeyError with the first pointer that leads nowhere.
    """
    path = pointer_tokens(pointer)
    changed = copy.deepcopy(full_form(document))
    place = changed
    for depth, token in enumerate(path):
        last = depth == len(path) - 1
        if isinstance(place, list) and token.isdecimal() and int(token) < len(place):
            key: Any = int(token)
        elif isinstance(place, dict) and (token in place or not token.isdecimal()):
            key = token
        else:
            raise KeyError("/" + "/".join(pointer.split("/")[1 : depth + 2]))
        if last and key == "kind" and place.get("kind") not in (None, value):
            place.clear()
        if last:
            place[key] = copy.deepcopy(value)
        elif isinstance(place, dict):
            place = place.setdefault(key, {})
        else:
            place = place[key]
    return full_form(changed)


def in_order(pointer: str) -> tuple[int, bool]:
    """Sort key of pointers whose values are put into one document: whole parts first, then kinds, then their fields."""
    return pointer.count("/"), not pointer.endswith("/kind")


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Return the patch that makes `after` of `before`: `merge_patch(before, difference(before, after))` is `after`.

    A part that has another `kind` is whole in it; lists are too. A null of `after` removes what it stands for.
    """
    whole = full_form(after)
    return _difference(_with_objects(full_form(before), whole), whole)


def _difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    patch: dict[str, Any] = {name: None for name in before if name not in after}
    for name, value in after.items():
        old = before.get(name)
        if name in before and old == value:
            continue
        if isinstance(old, Mapping) and isinstance(value, Mapping) and old.get("kind") == value.get("kind"):
            patch[name] = _difference(old, value)
        else:
            patch[name] = copy.deepcopy(value)
    return patch
