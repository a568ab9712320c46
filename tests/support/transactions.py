"""Rules of the service, called as a route calls them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy.orm import Session

from service.context import Context

P = ParamSpec("P")
T = TypeVar("T")


def transact(
    context: Context, function: Callable[Concatenate[Session, P], T], *arguments: P.args, **named: P.kwargs
) -> T:
    """Call `function` in a transaction of its own; committed when it returns, rolled back when it raises."""
    with context.sessions.begin() as session:
        return function(session, *arguments, **named)
