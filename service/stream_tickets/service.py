"""Stream tickets: a browser's EventSource sends no header, so a short-lived parameter stands for the key.

A ticket is bound to a key, to the path of one stream and to a minute. It is signed with the hash of the key's secret:
every API process can check it, nothing is stored, and it ends with its key.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from sqlalchemy.orm import Session

from service.database import db_time
from service.errors import HttpProblem
from service.keys import repository
from service.keys.service import ExpiredKeyError, identity_of
from service.keys.tables import ApiKey
from service.principal import Identity, Principal

PARAMETER = "ticket"
SECONDS = 60
FORM = re.compile(r"st_([0-9a-z]{8})_([0-9]{1,12})_([0-9a-f]{64})", re.ASCII)
STREAM = re.compile(r"/v1(/[A-Za-z0-9_.:-]{1,100}){1,3}/stream", re.ASCII)


def issue(session: Session, who: Principal, path: str) -> tuple[str, datetime]:
    """Return a ticket and when it ends. Raises a 422 problem for another path, a 403 problem for who has no key."""
    if STREAM.fullmatch(path) is None:
        message = f"{path[:80]!r} is not the path of a stream"
        hint = "Send /v1/jobs/{job_id}/stream with the job's id, without a query."
        error = {"pointer": "/path", "code": "not_a_stream", "message": message, "hint": hint}
        raise HttpProblem(422, "invalid_request", f"/path: {message}. {hint}", errors=[error])
    key = repository.key(session, who.key_id) if who.key_id else None
    if key is None:
        raise HttpProblem(403, "forbidden", "Only an API key can have a stream ticket. Ask with a key.")
    end = (db_time(session) + timedelta(seconds=SECONDS)).replace(microsecond=0)
    seconds = int(end.timestamp())
    return f"st_{key.id}_{seconds}_{_signature(key, path, seconds)}", end.astimezone(UTC)


def redeem(session: Session, ticket: str, path: str, max_key_days: int) -> Identity | None:
    """Return whose ticket it is, as a viewer; None for one that is wrong, over, for another path, or of a key that is."""
    match = FORM.fullmatch(ticket)
    if match is None:
        return None
    key_id, seconds, signature = match[1], int(match[2]), match[3]
    key = repository.key(session, key_id)
    if key is None or not hmac.compare_digest(_signature(key, path, seconds), signature):
        return None
    if seconds <= db_time(session).timestamp():
        return None
    try:
        identity = identity_of(session, key, max_key_days)
    except ExpiredKeyError:
        return None
    if identity is None or not identity.projects:
        return None
    return replace(identity, operator=False, projects=tuple(replace(one, role="viewer") for one in identity.projects))


def _signature(key: ApiKey, path: str, seconds: int) -> str:
    text = f"stream ticket\n{path}\n{seconds}"
    return hmac.new(key.secret_hash.encode(), text.encode(), hashlib.sha256).hexdigest()


def without_ticket(query: bytes) -> tuple[bytes, list[str]]:
    """Return a query string without its tickets, and these: nothing behind the authentication sees one, no log either."""
    kept, tickets = [], []
    for item in query.split(b"&"):
        name, _, value = item.partition(b"=")
        if name == PARAMETER.encode():
            tickets.append(value.decode("latin-1"))
        else:
            kept.append(item)
    return b"&".join(kept), tickets
