"""Every fenced block of README and docs/ is of a known kind and says what is true of the code."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer
import yaml
from pydantic import TypeAdapter

from docs.generate import openapi_document, pages
from service.errors import ProblemDocument
from tests.support.client_tools import client_tools, generate_python, write_document
from tests.support.markdown import ROOT, Fence, commands_of, fences_of, written_pages
from trainkit.spec import parse_spec
from trainkit.spec.experiments import ExperimentSpec
from trainkit.spec.failures import FAILURES
from trainkit_client.cli import app

KINDS = {
    "bash": {""},
    "python": {""},
    "yaml": {"Job spec", "Experiment"},
    "json": {"", "Job spec", "Experiment", "Problem document", "Response", "Failure", "Message"},
    "text": {"", "Caddyfile"},
    "nginx": {"nginx.conf"},
}
"""Language -> titles of fences. A title says what a block is, and so how it is checked."""
RUN_PYTHON = ("docs/how-to/library.md",)
"""Pages whose Python blocks run, one after another, in one interpreter."""
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
WITH_VALUE = {
    *("-H", "--header", "-X", "--request", "-d", "--data", "--data-binary", "-T", "--upload-file", "-o", "--output"),
    *("--data-urlencode", "-F", "--form", "-D", "--dump-header", "-w", "--write-out", "--max-time"),
}
"""Options of curl, as far as the pages use them, that are followed by a value."""
PLACEHOLDER = re.compile(r"\$\{?\w+\}?|\$\(.*?\)")


@cache
def fences() -> list[Fence]:
    written = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in written_pages()}
    generated = {f"docs/{path}": text for path, text in pages().items()}
    return [fence for path, text in {**written, **generated}.items() for fence in fences_of(text, path)]


def of(language: str, *titles: str) -> list[Fence]:
    return [fence for fence in fences() if fence.language == language and (not titles or fence.title in titles)]


def test_fences_are_of_known_kinds() -> None:
    unknown = [f"{f}: {f.language} {f.title!r}" for f in fences() if f.title not in KINDS.get(f.language, ())]
    assert unknown == []
    assert len(fences()) > 60


def test_job_specs_are_valid() -> None:
    for fence in (*of("yaml", "Job spec"), *of("json", "Job spec")):
        assert parse_spec(yaml.safe_load(fence.text)), fence


def test_experiments_are_valid() -> None:
    for fence in (*of("yaml", "Experiment"), *of("json", "Experiment")):
        plan: Any = TypeAdapter(ExperimentSpec).validate_python(yaml.safe_load(fence.text))
        assert parse_spec(plan.spec), fence


def test_json_blocks_parse() -> None:
    for fence in of("json"):
        try:
            document = json.loads(fence.text)
        except ValueError as error:
            raise AssertionError(f"{fence}: {error}") from None
        if fence.title == "Problem document":
            ProblemDocument.model_validate(document, extra="forbid")
        if fence.title == "Failure":
            known = FAILURES[document["code"]]
            assert (document["layer"], document["retryable"]) == (known.layer, known.retryable), fence
            assert set(document) == {"code", "layer", "message", "evidence", "retryable", "hint"}, fence


def test_bash_blocks_parse() -> None:
    for fence in of("bash"):
        done = subprocess.run(["bash", "-n"], input=fence.text, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{fence}: {done.stderr}"


def test_curl_commands_use_routes_that_exist() -> None:
    checked = 0
    for fence in of("bash"):
        for command in commands_of(fence.text):
            if command[0] == "curl" and (request := request_of(command)):
                check_request(fence, *request)
                checked += 1
    assert checked > 40


def request_of(words: list[str]) -> tuple[str, str, str | None, list[str]] | None:
    """(method, path, body, names of a form's parts) of a curl command that calls the service; None for another host."""
    method, body, address, uploads, head, query, form = "", None, "", False, False, False, []
    rest = iter(words[1:])
    for word in rest:
        value = next(rest, "") if word in WITH_VALUE else ""
        if word in ("-X", "--request"):
            method = value
        elif word in ("-d", "--data", "--data-binary"):
            body = value
        elif word in ("-F", "--form"):
            form.append(value.partition("=")[0])
        elif word in ("-T", "--upload-file"):
            uploads = True
        elif word in ("-I", "--head"):
            head = True
        elif word in ("-G", "--get"):
            query = True
        elif not value and re.match(r"^(\$URL|https?://127\.0\.0\.1:8321)", word):
            address = word
    if not address:
        return None
    path = re.sub(r"^\$URL", "/v1", re.sub(r"^https?://127\.0\.0\.1:8321", "", address)).split("?")[0]
    if query:
        body = None  # -G puts what -d says into the address
    default = "HEAD" if head else "PUT" if uploads else "POST" if body is not None or form else "GET"
    return method or default, path, body, form


def check_request(fence: Fence, method: str, path: str, body: str | None, form: list[str]) -> None:
    document = openapi_document_once()
    assert method in METHODS, f"{fence}: {method}"
    plain = PLACEHOLDER.sub("x", path)
    operations = [
        item[method.lower()]
        for template, item in document["paths"].items()
        if method.lower() in item and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), plain)
    ]
    assert operations, f"{fence}: no route {method} {path}"
    if form:
        parts = operations[0]["requestBody"]["content"]["multipart/form-data"]["schema"]
        known = document["components"]["schemas"][parts["$ref"].rpartition("/")[2]] if "$ref" in parts else parts
        assert set(form) <= set(known["properties"]), f"{fence}: {form}"
        return
    if body is None or body.startswith("@") or path.endswith("specs:validate"):
        return
    content = operations[0].get("requestBody", {}).get("content", {})
    assert content, f"{fence}: {method} {path} takes no body"
    schema = content.get("application/json", {}).get("schema", {})
    sent = yaml.safe_load(PLACEHOLDER.sub("x", body))
    jsonschema.validate(sent, {**schema, "components": document["components"]})
    if (method, path) == ("POST", "/v1/jobs") and "from_diagnosis" not in sent:
        assert parse_spec(sent), fence
    if (method, path) == ("POST", "/v1/experiments"):
        TypeAdapter(ExperimentSpec).validate_python(sent)


@cache
def openapi_document_once() -> dict[str, Any]:
    return openapi_document()


def test_trainkit_commands_and_options_exist() -> None:
    checked = 0
    for fence in of("bash"):
        for command in commands_of(fence.text):
            if Path(command[0]).name == "trainkit":
                check_command(fence, command[1:])
                checked += 1
    assert checked > 5


def check_command(fence: Fence, words: list[str]) -> None:
    found: Any = typer.main.get_command(app)
    while words and hasattr(found, "commands") and words[0] in found.commands:
        found, words = found.commands[words[0]], words[1:]
    known: set[str] = {name for parameter in found.params for name in (*parameter.opts, *parameter.secondary_opts)}
    options = {word.split("=")[0] for word in words if word.startswith("-") and word != "-"}
    assert options <= known | {"--help", "-h"}, f"{fence}: {options - known}"
    assert not hasattr(found, "commands") or options, f"{fence}: no command {words}"


def test_make_targets_and_scripts_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for fence in of("bash"):
        for command in commands_of(fence.text):
            if command[0] == "make":
                named = {word for word in command[1:] if "=" not in word and not word.startswith("-")}
                assert named <= targets, f"{fence}: {named - targets}"
            if command[0].endswith(".sh"):
                assert os.access(ROOT / command[0], os.X_OK), f"{fence}: {command[0]}"
            if Path(command[0]).name.startswith("python") and len(command) > 1:
                if command[1] == "-m":
                    assert importlib.util.find_spec(command[2]), f"{fence}: {command[2]}"
                elif command[1].endswith(".py") and "/" in command[1]:
                    assert (ROOT / command[1]).is_file(), f"{fence}: {command[1]}"


def test_python_blocks_import_what_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generate_python(client_tools(), write_document(tmp_path / "openapi.json"), tmp_path / "trainkit_api")
    monkeypatch.syspath_prepend(tmp_path)
    for fence in of("python"):
        tree = ast.parse(fence.text, filename=str(fence))
        names: dict[str, Any] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    names[alias.asname or alias.name.split(".")[0]] = importlib.import_module(alias.name)
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(str(node.module))
                for alias in node.names:
                    if not hasattr(module, alias.name):  # a module of a package
                        importlib.import_module(f"{node.module}.{alias.name}")
                    names[alias.asname or alias.name] = getattr(module, alias.name)
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in names:
                assert hasattr(names[node.value.id], node.attr), f"{fence}: {node.value.id}.{node.attr}"


@pytest.mark.parametrize("path", RUN_PYTHON)
def test_python_blocks_run(path: str, tmp_path: Path) -> None:
    """In a process of its own, in a folder with the examples' data."""
    subprocess.run([sys.executable, ROOT / "examples/make_data.py", tmp_path / "demo-output"], check=True)
    script = "\n".join(fence.text for fence in of("python") if fence.path == path)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "client")]),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
