"""Rules of names: a reference becomes a row once, a name's versions only rise, an alias moves in one transaction."""

from __future__ import annotations

import difflib
from typing import Any

from sqlalchemy.orm import Session

from service.errors import HttpProblem
from service.registry import repository
from service.registry.names import ID, MAX_REFERENCE, Reference, is_storable, parse_reference
from service.registry.repository import Resource, T, Versioned
from service.registry.tables import AliasAssignment

MOST_COMPARED = 500
"""Names from the beginning of the list, and from the first letter on, that a wrong one is compared with."""
NEAREST, LEAST_SIMILAR = 3, 0.6
SHOWN = 80
"""Characters of a wrong reference in a message."""


class UnknownReferenceError(LookupError):
    """A reference that names nothing in the project: `message` says what, `hint` what comes near."""

    def __init__(self, message: str, hint: str) -> None:
        self.message, self.hint = message, hint
        super().__init__(f"{message}. {hint}")

    def as_problem(self) -> HttpProblem:
        """The 404 problem."""
        detail = f"{self.message[:1].upper()}{self.message[1:]}. {self.hint}"
        return HttpProblem(404, "not_found", detail.strip())


def resolve_reference(session: Session, project_id: str, resource: Resource[T], reference: str) -> T:
    """Return the dataset or model that an id, `name`, `name:version` or `name@alias` means now.

    A name alone is its newest version, of datasets the newest that is not invalid. Raises UnknownReferenceError.
    """
    found = None
    if is_storable(reference) and len(reference) <= MAX_REFERENCE:
        if reference.startswith(resource.prefix):
            found = repository.by_id(session, project_id, resource, reference)
        if found is None and not ID.fullmatch(reference):
            found = _by_name(session, project_id, resource, parse_reference(reference))
    if found is None:
        raise _unknown(session, project_id, resource, reference)
    return found


def ids_of_filter(
    session: Session, project_id: str, resource: Resource[T], parameter: str, reference: str
) -> list[str]:
    """Return the id that a filter names; nothing for an unknown id. Raises a 422 problem for an unknown name."""
    try:
        return [resolve_reference(session, project_id, resource, reference).id]
    except UnknownReferenceError as error:
        if ID.fullmatch(reference):
            return []
        pointer, code = f"query/{parameter}", f"unknown_{resource.kind}"
        item = {"pointer": pointer, "code": code, "message": error.message, "hint": error.hint}
        raise HttpProblem(422, "invalid_request", f"{parameter}: {error}", errors=[item]) from None


def find(session: Session, project_id: str, resource: Resource[T], reference: str) -> T:
    """The same for a reference in an address. Raises a 404 problem."""
    try:
        return resolve_reference(session, project_id, resource, reference)
    except UnknownReferenceError as error:
        raise error.as_problem() from None


def _by_name(session: Session, project_id: str, resource: Resource[T], named: Reference) -> T | None:
    if named.alias is not None:
        return repository.by_alias(session, project_id, resource, named.name, named.alias)
    if named.version is not None:
        return repository.by_version(session, project_id, resource, named.name, named.version)
    return repository.newest(session, project_id, resource, named.name)


def _unknown(session: Session, project_id: str, resource: Resource[Any], text: str) -> UnknownReferenceError:
    """What is wrong with the reference, and what comes near."""
    shown, listing = repr(text[:SHOWN]), f"GET /v1/{resource.kind}s lists the {resource.kind}s of this project."
    message = f"there is no {resource.kind} {shown} in this project"
    if ID.fullmatch(text):
        kinds = {"ds": "dataset", "mdl": "model", "job": "job", "exp": "experiment"}
        kind = kinds[text.partition("_")[0]]
        hint = listing if kind == resource.kind else f"It is the id of a {kind}, where a {resource.kind} is wanted."
        return UnknownReferenceError(message, hint)
    if not is_storable(text):
        return UnknownReferenceError(message, listing)
    named = parse_reference(text[:MAX_REFERENCE])
    last = repository.last_version(session, project_id, resource, named.name)
    if not last:
        near = _nearest(session, project_id, resource, named.name)
        return UnknownReferenceError(message, f"Nearest: {', '.join(near)}." if near else listing)
    newest = repository.newest(session, project_id, resource, named.name)
    is_newest = "" if newest is None else f" Its newest is {_shown(newest)}."
    if named.alias is not None:
        aliases = repository.aliases_of_name(session, project_id, resource, named.name)
        has = ", ".join(f"{one.alias!r} (version {one.version}, {one.target_id})" for one in aliases[:10]) or "none"
        return UnknownReferenceError(message, f"Aliases of {named.name[:SHOWN]!r}: {has}.{is_newest}")
    if named.version is not None and 1 <= named.version <= last:
        gone = f"Version {named.version} of {named.name[:SHOWN]!r} was deleted or renamed."
        return UnknownReferenceError(message, f"{gone}{is_newest}")
    if newest is None:
        reason = "every version of it was deleted, renamed or found invalid"
        return UnknownReferenceError(message, f"Of {named.name[:SHOWN]!r} nothing is left to use: {reason}.")
    return UnknownReferenceError(message, is_newest.strip())


def _shown(row: Versioned) -> str:
    return f"{row.name[:SHOWN]}:{row.version} ({row.id})"


def _nearest(session: Session, project_id: str, resource: Resource[T], name: str) -> list[str]:
    """The names that are spelt alike, each with the id that it means."""
    known = [*repository.names(session, project_id, resource, MOST_COMPARED, name[:1])]
    known += repository.names(session, project_id, resource, MOST_COMPARED)
    folded: dict[str, str] = {}
    for one in known:
        folded.setdefault(one.casefold(), one)
    near = []
    for match in difflib.get_close_matches(name[:SHOWN].casefold(), folded, NEAREST, LEAST_SIMILAR):
        newest = repository.newest(session, project_id, resource, folded[match])
        if newest is not None:
            near.append(f"{folded[match][:SHOWN]!r} ({newest.id})")
    return near


def set_alias(
    session: Session, project_id: str, resource: Resource[T], reference: str, alias: str, actor: str
) -> AliasAssignment:
    """Let the alias mean the version that the reference means; whatever it meant before ends in the same transaction.

    Setting it again changes nothing. Raises a 404 problem, and 409 for a model without a name.
    """
    target = find(session, project_id, resource, reference)
    if target.version is None:
        detail = (
            f"The model has no name that {alias!r} could be an alias of. PATCH /v1/models/{target.id} gives it one."
        )
        raise HttpProblem(409, "no_name", detail)
    _lock(session, project_id, resource, target)
    current = repository.alias_in_force(session, project_id, resource, target.name, alias)
    if current is not None and current.target_id == target.id:
        return current
    if current is not None:
        repository.end_alias(session, current, actor)
    return repository.add_alias(session, project_id, resource, target, alias, actor)


def remove_alias(
    session: Session, project_id: str, resource: Resource[T], reference: str, alias: str, actor: str
) -> None:
    """Let the alias of the name mean nothing, whichever version it meant. Raises a 404 problem."""
    target = find(session, project_id, resource, reference)
    if target.version is not None:
        _lock(session, project_id, resource, target)
        current = repository.alias_in_force(session, project_id, resource, target.name, alias)
        if current is not None:
            repository.end_alias(session, current, actor)
            return
    shown = f"The {resource.kind} {target.name[:SHOWN]!r}" if target.name else f"The {resource.kind} {target.id}"
    raise HttpProblem(404, "not_found", f"{shown} has no alias {alias[:64]!r}.")


def rename(session: Session, project_id: str, resource: Resource[T], target: T, name: str) -> int:
    """Return the version that the target has under another name; the caller writes it. Raises a 409 problem for one
    with an alias. The version that it had is given to nobody else.
    """
    for locked in sorted({target.name, name} - {""}):  # in the same order whoever renames
        repository.lock_name(session, project_id, resource, locked)
    check_not_aliased(session, project_id, resource, target, "renamed")
    return repository.next_version(session, project_id, resource, name)


def check_not_aliased(session: Session, project_id: str, resource: Resource[T], target: T, action: str) -> None:
    """Raise a 409 problem while the target has aliases. Its name is locked, so that none comes meanwhile."""
    if target.version is not None:
        _lock(session, project_id, resource, target)
    check_no_alias(session, resource, target, action)


def check_no_alias(session: Session, resource: Resource[T], target: T, action: str) -> None:
    """The same as things are now, without a lock."""
    if aliases := repository.aliases_of(session, [target.id])[target.id]:
        place = f"/v1/{resource.kind}s/{target.id}/aliases/{aliases[0]}"
        means = ", ".join(f"{target.name[:SHOWN]}@{alias}" for alias in aliases)
        detail = (
            f"{means} means this {resource.kind}: it cannot be {action}. Move the alias to another version first, or "
            f"remove it: DELETE {place}."
        )
        raise HttpProblem(409, "aliased", detail)


def _lock(session: Session, project_id: str, resource: Resource[T], target: T) -> None:
    """Lock the target's name. Raises a 409 problem where it was deleted or renamed while this waited for the lock."""
    identifier, name = target.id, target.name
    repository.lock_name(session, project_id, resource, name)
    session.expire(target)
    fresh = repository.by_id(session, project_id, resource, identifier)
    if fresh is None or fresh.name != name:
        raise HttpProblem(409, "changed_meanwhile", f"The {resource.kind} was deleted or renamed just now. Look again.")
