"""Imports go one way and never in a circle, and SQL has its place. Read from the source: lazy imports count too."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TORCH = {"torch", "torchvision"}
FOLDERS = {
    "trainkit": "trainkit",
    "service": "service",
    "worker": "worker",
    "trainkit_client": "client/trainkit_client",
}
"""Our packages and their folders."""
OURS = set(FOLDERS)
SERVER_COMMANDS = "service/cli"
"""They name the service's other modules as text, and no module of the service needs them."""
SLOW = TORCH | {
    "cryptography",
    "joserfc",
    "matplotlib",
    "pyarrow",
    "PIL",
    "sklearn",
    "threadpoolctl",
    "optuna",
    "onnx",
    "opentelemetry",
}
SLOW |= {"obstore", "openpyxl", "zstandard", "httpx", "mcp"}
"""Libraries that take long to import or that few processes need: a function may delay these, and nothing else."""
SQL_FILES = {"repository.py", "tables.py", "database.py", "migrate.py"}
"""`migrate.py` locks the database and checks foreign keys around Alembic: no statement of it reads or writes a row."""
SQL_FUNCTIONS = {"delete", "exists", "func", "insert", "select", "text", "update"}
SQL_METHODS = {"execute", "get_one", "scalar", "scalars"}
SESSION_METHODS = {"add", "add_all", "delete", "get", "merge"}
"""Names that other objects have as well: they count where they are called on a session or a connection."""


def imports(folder: str) -> Iterator[tuple[Path, str]]:
    """Every absolute import of a file, or of every file below a folder, functions' own imports included."""
    files = [ROOT / folder] if folder.endswith(".py") else sorted((ROOT / folder).rglob("*.py"))
    assert files, folder
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                yield from ((file, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                yield file, node.module
                yield from ((file, f"{node.module}.{alias.name}") for alias in node.names)


def is_within(name: str, allowed: tuple[str, ...]) -> bool:
    """Whether an import of ours stays within the allowed packages."""
    return any(name == folder or name.startswith(folder + ".") for folder in allowed)


@pytest.mark.parametrize(
    ("folder", "allowed"),
    [
        ("trainkit", ("trainkit",)),
        (
            "service",
            (
                "service",
                "trainkit.spec",
                "trainkit.diagnose",
                "trainkit.plots",
                "trainkit.plots.evidence",
                "trainkit.files",
                "trainkit.redis_versions",
                "trainkit.version",
                "trainkit_client",  # only `service/mcp`, see below
            ),
        ),
        ("worker", ("worker", "service", "trainkit")),
        ("client/trainkit_client", ("trainkit_client", "trainkit.spec")),
        (
            SERVER_COMMANDS,
            (
                "service.cli",
                "trainkit.spec",
                "trainkit.processes",
                "trainkit.redis_versions",
                "trainkit.version",
                "trainkit_client.config",
            ),
        ),
    ],
)
def test_imports_go_one_way(folder: str, allowed: tuple[str, ...]) -> None:
    wrong = [
        f"{file.relative_to(ROOT)}: {name}"
        for file, name in imports(folder)
        if (folder == SERVER_COMMANDS or not file.is_relative_to(ROOT / SERVER_COMMANDS))
        and name.split(".")[0] in OURS
        and name not in ("trainkit", "service")
        and not is_within(name, allowed)
    ]
    assert wrong == []


def test_only_the_entry_point_needs_the_servers_commands() -> None:
    users = [
        f"{file.relative_to(ROOT)}: {name}"
        for folder in FOLDERS.values()
        for file, name in imports(folder)
        if is_within(name, ("service.cli",)) and not file.is_relative_to(ROOT / SERVER_COMMANDS)
    ]
    assert users == []


def test_only_the_mcp_endpoint_and_the_servers_commands_need_the_client() -> None:
    wrong = {
        str(file.relative_to(ROOT))
        for file, name in imports("service")
        if name.split(".")[0] == "trainkit_client"
        and not any(file.is_relative_to(ROOT / folder) for folder in ("service/mcp", SERVER_COMMANDS))
    }
    assert wrong == set()


@pytest.mark.parametrize(
    "folder",
    [
        "service",
        "client/trainkit_client",
        "trainkit/spec",
        "trainkit/diagnose",
        "trainkit/data",
        "trainkit/files.py",
        "trainkit/processes.py",
        "trainkit/version.py",
        "migrations",
    ],
)
def test_torch_stays_out(folder: str) -> None:
    assert [f"{file.relative_to(ROOT)}: {name}" for file, name in imports(folder) if name.split(".")[0] in TORCH] == []


@pytest.mark.parametrize("forbidden", ["service", "worker", "celery", "sqlalchemy", "fastapi"])
def test_the_library_knows_nothing_of_http_sql_or_celery(forbidden: str) -> None:
    assert [str(file) for file, name in imports("trainkit") if name.split(".")[0] == forbidden] == []


def test_files_stay_readable() -> None:
    long = {
        str(file.relative_to(ROOT)): lines
        for folder in (*FOLDERS.values(), "tests", "benchmarks", "examples", "migrations")
        for file in (ROOT / folder).rglob("*.py")
        if (lines := len(file.read_text().splitlines())) > 800
    }
    assert long == {}


def modules() -> dict[str, Path]:
    """Every module of ours by its dotted name."""
    found: dict[str, Path] = {}
    for package, folder in sorted(FOLDERS.items()):
        for file in sorted((ROOT / folder).rglob("*.py")):
            parts = (Path(package) / file.relative_to(ROOT / folder)).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def runtime_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node that can run: all but the bodies of `if TYPE_CHECKING`."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            waiting += node.orelse
        else:
            yield node
            waiting += ast.iter_child_nodes(node)


def module_imports() -> dict[str, set[str]]:
    """The modules of ours that each module of ours imports, anywhere in its code."""
    files = modules()
    graph: dict[str, set[str]] = {}
    for module, file in files.items():
        for node in runtime_nodes(ast.parse(file.read_text())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                submodules = [f"{node.module}.{alias.name}" for alias in node.names]
                names = [name if name in files else node.module for name in submodules]
            graph.setdefault(module, set()).update(name for name in names if name in files and name != module)
    return graph


def package_imports(graph: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """The same between packages; a package and its own sub-packages belong together, so edges between them are left out."""
    files = modules()

    def package(module: str) -> str:
        return module if files[module].name == "__init__.py" else module.rpartition(".")[0]

    packages: dict[str, set[str]] = {}
    for module, imported in graph.items():
        importer = package(module)
        for other in map(package, imported):
            if not f"{other}.".startswith(f"{importer}.") and not f"{importer}.".startswith(f"{other}."):
                packages.setdefault(importer, set()).add(other)
    return packages


def find_cycle(graph: Mapping[str, set[str]], start: str) -> list[str]:
    """A shortest path from `start` back to itself; empty when there is none."""
    paths = [[start]]
    seen: set[str] = set()
    while paths:
        path = paths.pop(0)
        for name in sorted(graph.get(path[-1], ())):
            if name == start:
                return [*path, start]
            if name not in seen:
                seen.add(name)
                paths.append([*path, name])
    return []


@pytest.mark.parametrize("level", ["modules", "packages"])
def test_no_import_cycles(level: str) -> None:
    graph = module_imports()
    if level == "packages":
        graph = package_imports(graph)
    cycles = {" -> ".join(cycle) for name in graph if (cycle := find_cycle(graph, name))}
    assert not cycles, (
        f"Import cycles between {level}. Move what both sides need into a module that imports neither, or pass it in:\n"
        + "\n".join(sorted(cycles, key=len))
    )


def imported_names(node: ast.AST) -> list[str]:
    """The modules that an import statement imports, and the names that it takes from them as if they were modules."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module:
        return [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return []


def packages_of(names: list[str]) -> set[str]:
    """The packages around these modules, which are imported with them."""
    return {name.rsplit(".", up)[0] for name in names for up in range(1, name.count(".") + 1)}


def slow_modules() -> set[str]:
    """Our modules that import a slow library when they are imported, by themselves or by another module."""
    graph: dict[str, set[str]] = {}
    for module, file in modules().items():
        top = [node for node in ast.parse(file.read_text()).body if not isinstance(node, ast.If)]
        names = [name for node in top for name in imported_names(node)]
        graph[module] = {*names, *packages_of(names)}
    slow = {module for module, names in graph.items() if {name.split(".")[0] for name in names} & SLOW}
    while more := {module for module, names in graph.items() if names & slow} - slow:
        slow |= more
    return slow


def test_imports_in_functions_delay_only_what_is_slow() -> None:
    slow, needless = slow_modules(), []
    # packages that import what they export on its first use
    lazy = {name for name, file in modules().items() if "def __getattr__" in file.read_text()}
    for module, file in modules().items():
        if module.startswith(("trainkit_client", "service.cli")):
            continue  # a command line: how long it takes to import is measured (tests/client/cli)
        for function in ast.walk(ast.parse(file.read_text())):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                for node in ast.walk(function):
                    names = imported_names(node)
                    roots = {name.split(".")[0] for name in names}
                    if names and not (roots & SLOW or {*names, *packages_of(names)} & slow or names[0] in lazy):
                        needless.append(f"{file.relative_to(ROOT)} {ast.unparse(node)}")
    assert sorted(set(needless)) == [], "import it at the top of the file"


def count_sql(file: Path) -> int:
    """How many calls build or send SQL."""
    tree = ast.parse(file.read_text())
    functions = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "sqlalchemy"
        for alias in node.names
        if alias.name in SQL_FUNCTIONS
    }
    count = 0
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        match node.func:
            case ast.Name(id=name) | ast.Attribute(value=ast.Name(id=name)) if name in functions:
                count += 1
            case ast.Attribute(attr=method) if method in SQL_METHODS:
                count += 1
            case ast.Attribute(value=ast.Name(id=name) | ast.Attribute(attr=name), attr=method):
                count += method in SESSION_METHODS and name.endswith(("session", "connection"))
    return count


def test_sql_stays_in_repositories() -> None:
    found = Counter(
        {
            str(file.relative_to(ROOT)): count_sql(file)
            for folder in ("service", "worker")
            for file in sorted((ROOT / folder).rglob("*.py"))
            if file.name not in SQL_FILES
        }
    )
    assert not +found, (
        f"SQL belongs in repository.py (tables.py, database.py): move it there and call a function: {+found}"
    )


def test_helpers_are_not_imported_from_tests() -> None:
    wrong = [
        f"{file.relative_to(ROOT)}: {name}"
        for file, name in imports("tests")
        if any(part.startswith("test_") for part in name.split(".")[:-1])
    ]
    assert wrong == [], "helpers of several tests live in tests/support"
