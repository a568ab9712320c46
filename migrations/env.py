"""Alembic's environment: the caller (service/migrate.py) hands over an open connection and owns the transaction."""

from __future__ import annotations

from alembic import context

from service.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
    compare_type=True,
)
context.run_migrations()
