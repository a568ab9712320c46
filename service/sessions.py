"""The factory of database sessions."""

from __future__ import annotations

from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

import service.tables  # noqa: F401 - a flush needs every table, also those that the process does not import itself


def session_factory(engine: Engine) -> sessionmaker[Session]:
    """Return a factory of sessions whose objects stay readable after the commit."""
    return sessionmaker(engine, expire_on_commit=False)
