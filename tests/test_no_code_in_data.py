"""Data is never code: nothing of ours reads pickle, evaluates text or starts a shell. Read from the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
FOLDERS = ("trainkit", "service", "worker", "client", "supply_chain", "migrations", "benchmarks", "docs", "examples")
MODULES = {
    *(
        "pickle",
        "_pickle",
        "cPickle",
        "pickletools",
        "dill",
        "cloudpickle",
        "jsonpickle",
        "joblib",
        "marshal",
        "shelve",
    ),
    *("multiprocessing", "xmlrpc", "torch.package", "torch.hub", "code", "codeop", "pty", "imp", "copyreg"),
}
"""Their loaders run code, or they send pickles."""
ALLOWED_IMPORTS = {
    # a pool and its forked workers, all confined alike, send each other tasks and results
    ("trainkit/data/process_pool.py", "multiprocessing"),
    # starts measured processes of its own
    ("benchmarks/intake.py", "multiprocessing"),
}
FUNCTIONS = {"eval", "exec", "compile", "__import__", "breakpoint"}
METHODS = {
    "os": {"system", "popen", "execvp", "execlp", "spawnlp", "spawnvp"},
    "subprocess": {"getoutput", "getstatusoutput"},
    "pd": {"read_pickle", "read_hdf"},
    "pandas": {"read_pickle", "read_hdf"},
    "yaml": {"unsafe_load", "unsafe_load_all", "full_load", "full_load_all", "load_all"},
}
SAFE_YAML = {"client/trainkit_client/documents.py", "service/request_body.py"}
"""Files with a loader of their own, which a test below checks."""


def violations(source: str, file: str = "x.py") -> Iterator[str]:
    """What a file does that could run code of its data, each with its line."""
    for node in ast.walk(ast.parse(source)):
        line = f"{file}:{getattr(node, 'lineno', 0)}"
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            for module in MODULES:
                if (name == module or name.startswith(module + ".")) and (file, module) not in ALLOWED_IMPORTS:
                    yield f"{line} imports {name}"
        if isinstance(node, ast.Call):
            yield from (f"{line} {problem}" for problem in _problems_of_call(node, file))
        if isinstance(node, ast.Attribute | ast.Name) and (getattr(node, "attr", None) or getattr(node, "id", "")) in (
            "PickleType",
            "UnsafeLoader",
            "FullLoader",
        ):
            yield f"{line} uses a loader or a type that runs code"


def _problems_of_call(call: ast.Call, file: str) -> Iterator[str]:
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    function = call.func

    def is_constant(name: str, value: object) -> bool:
        given = keywords.get(name)
        return isinstance(given, ast.Constant) and given.value is value

    if isinstance(function, ast.Name) and function.id in FUNCTIONS:
        yield f"calls {function.id}()"
    if "shell" in keywords and not is_constant("shell", False):
        yield "starts a shell"
    if "allow_pickle" in keywords and not is_constant("allow_pickle", False):
        yield "allows pickle"
    if not isinstance(function, ast.Attribute):
        return
    base = function.value.id if isinstance(function.value, ast.Name) else ""
    if function.attr in METHODS.get(base, ()):
        yield f"calls {base}.{function.attr}()"
    if base == "torch" and function.attr == "load" and not is_constant("weights_only", True):
        yield "calls torch.load() without weights_only=True"
    if base in ("np", "numpy") and function.attr in ("load", "save") and not is_constant("allow_pickle", False):
        yield f"calls {base}.{function.attr}() without allow_pickle=False"
    if base == "yaml" and function.attr == "load" and file not in SAFE_YAML:
        yield "calls yaml.load(): use yaml.safe_load()"


@pytest.mark.parametrize("folder", FOLDERS)
def test_nothing_of_ours_runs_data(folder: str) -> None:
    files = sorted((ROOT / folder).rglob("*.py"))
    found = [
        problem
        for file in files
        for problem in violations(file.read_text(encoding="utf-8"), file.relative_to(ROOT).as_posix())
    ]
    assert found == []


def test_the_loaders_of_yaml_make_plain_values_only() -> None:
    from service import request_body
    from trainkit_client.documents import SpecFileError, read_yaml

    assert issubclass(request_body.CoreSchemaLoader, yaml.SafeLoader | yaml.CSafeLoader)
    for tag in ("!!python/object/apply:os.system [echo]", "!!python/name:os.system", "!!python/module:os"):
        with pytest.raises(yaml.YAMLError):
            yaml.load(tag, request_body.CoreSchemaLoader)
        with pytest.raises(SpecFileError, match="not YAML"):
            read_yaml(f"name: {tag}")


def test_celery_takes_json_alone() -> None:
    """Read from the source: the module connects to a broker when it is imported."""
    source = (ROOT / "worker/celery_app.py").read_text()
    assert 'accept_content=["json"]' in source
    assert 'task_serializer="json"' in source


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "import joblib.numpy_pickle",
        "from multiprocessing import Pool",
        "import marshal, json",
        "eval('1')",
        "exec(text)",
        "import torch\ntorch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=flag)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=flag)",
        "np.save(path, x)",
        "read(path, allow_pickle=True)",
        "yaml.load(text, Loader=yaml.FullLoader)",
        "yaml.load(text, LOADER)",
        "yaml.unsafe_load(text)",
        "subprocess.run(command, shell=True)",
        "subprocess.run(command, shell=flag)",
        "os.system('x')",
        "os.popen('x')",
        "pd.read_pickle(path)",
        "Column(PickleType)",
    ],
)
def test_what_runs_data_is_found(source: str) -> None:
    assert list(violations(source))


@pytest.mark.parametrize(
    "source",
    [
        "network.eval()",
        "torch.load(path, weights_only=True)",
        "np.load(path, allow_pickle=False)",
        "yaml.safe_load(text)",
        "re.compile('x')",
        "torch.compile(network)",
        "json.loads(text)",
        "subprocess.run([program], check=True)",
    ],
)
def test_what_does_not_is_left_alone(source: str) -> None:
    assert not list(violations(source))
