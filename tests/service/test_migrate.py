"""The migrated schema is the one that the code believes in, on both databases."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text

from service.database import make_engine
from service.migrate import upgrade
from service.tables import Base

ROOT = Path(__file__).parents[2]


def test_migrations_make_the_tables_that_the_code_describes(migrated_url: str) -> None:
    engine = make_engine(migrated_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def test_migrating_again_changes_nothing(migrated_url: str) -> None:
    upgrade(migrated_url)
    engine = make_engine(migrated_url)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all() == ["0001"]
    engine.dispose()


def test_several_migrations_at_once_give_one_schema(database_url: str) -> None:
    environment = {**os.environ, "TRAINKIT_DATABASE_URL": database_url}
    command = [sys.executable, "-m", "service.migrate"]
    several = [
        subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in several:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    engine = make_engine(database_url)
    assert set(Base.metadata.tables) <= set(inspect(engine).get_table_names())
    engine.dispose()


def test_a_failed_migration_leaves_nothing(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import alembic.op

    made = alembic.op.create_table

    def break_late(name: str, *columns: object, **options: object) -> object:
        if name == "models":
            raise RuntimeError("the power went out")
        return made(name, *columns, **options)

    monkeypatch.setattr(alembic.op, "create_table", break_late)
    with pytest.raises(RuntimeError, match="power"):
        upgrade(database_url)
    engine = make_engine(database_url)
    assert inspect(engine).get_table_names() == []
    monkeypatch.undo()
    upgrade(database_url)
    assert "models" in inspect(engine).get_table_names()
    engine.dispose()
