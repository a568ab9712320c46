"""The documentation site builds without a warning, is complete, and names only what exists."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from docs.generate import SPEC_FIELDS_OF, openapi_document, pages, prometheus_families, settings_rows
from tests.support.markdown import IMAGE, LINK, ROOT, anchors_of, outside_fences, written_pages
from trainkit.spec.catalog import catalog
from trainkit.spec.failures import FAILURES

LONGEST_LINE = 120
PROJECT_PATH = re.compile(r"`((?:tests|trainkit|service|worker|client|examples|benchmarks|migrations|docs)/[\w/.*-]*)`")
VARIABLE = re.compile(r"\b(?:TRAINKIT|PROMETHEUS)_[A-Z0-9_]+\b")
NOT_SETTINGS = {"TRAINKIT_KEY", "TRAINKIT_URL", "TRAINKIT_FAILPOINTS", "TRAINKIT_PROJECT", "TRAINKIT_PROFILE"}
"""Variables that the examples, the command line and the tests read."""
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:work|home|root|tmp|Users)/")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built with `--strict`: links, anchors and the navigation are checked by MkDocs."""
    folder = tmp_path_factory.mktemp("site")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "client")]),
        "NO_MKDOCS_2_WARNING": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@cache
def texts() -> dict[str, str]:
    """Every page by its path, the generated ones included."""
    written = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in written_pages()}
    return {**written, **{f"docs/{path}": text for path, text in pages().items()}}


def test_site_loads_nothing_from_another_host(site: Path) -> None:
    loaded = re.compile(
        r'<(?:script|img|iframe|source)[^>]*\ssrc="?https?://|<link[^>]*\shref="?https?://|@import url\(.?https?://'
    )
    built = sorted(site.rglob("*.html"))
    assert len(built) > 25
    assert [str(page.relative_to(site)) for page in built if loaded.search(page.read_text())] == []


def test_site_renders_every_code_block(site: Path) -> None:
    for page in site.rglob("*.html"):
        assert "<code>bash\n" not in (text := page.read_text()), page
        assert "```" not in text, page


def test_links_of_the_project_pages_lead_somewhere() -> None:
    """README and its neighbours are no pages of the site: a link must name a file, and an anchor of it."""
    for path in ROOT.glob("*.md"):
        text = outside_fences(path.read_text(encoding="utf-8"))
        for link in (*LINK.findall(text), *IMAGE.findall(text)):
            if re.match(r"^(https?|mailto):", link):
                continue
            file, _, anchor = link.partition("#")
            target = path.parent / file if file else path
            generated = texts().get(file)
            assert target.exists() or generated, f"{path.name}: {link}"
            if anchor:
                assert anchor in anchors_of(generated or target.read_text(encoding="utf-8")), f"{path.name}: {link}"


def test_paths_named_in_pages_exist() -> None:
    missing = [
        f"{path}: {named}"
        for path, text in texts().items()
        for named in PROJECT_PATH.findall(text)
        if not path.startswith("CHANGELOG") and not any(ROOT.glob(named.rstrip("/"))) and named[5:] not in pages()
    ]
    assert missing == []


def test_variables_named_in_pages_are_settings() -> None:
    known = {name for name, _, _ in settings_rows()} | NOT_SETTINGS
    for path, text in texts().items():
        named = {name.rstrip("_") for name in VARIABLE.findall(text)}
        assert named <= known, f"{path}: {named - known}"


def test_lines_are_short() -> None:
    """Tables and links may be longer: a row is one line, and so is an address."""
    for path in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if len(line) > LONGEST_LINE and not line.startswith("|") and "](http" not in line:
                raise AssertionError(f"{path.relative_to(ROOT)}:{number} has {len(line)} characters")


def test_pages_name_no_folder_of_a_machine() -> None:
    assert [path for path, text in texts().items() if MACHINE_PATH.search(text)] == []


def test_reference_lists_every_setting_with_its_meaning() -> None:
    rows = settings_rows()
    assert len({name for name, _, _ in rows}) == len(rows) > 30
    assert [name for name, _, meaning in rows if not meaning] == []
    read = set(re.findall(r'"((?:TRAINKIT|PROMETHEUS)_[A-Z0-9_]+)"', (ROOT / "service/settings.py").read_text()))
    assert {name for name, _, _ in rows} == read


def test_reference_lists_every_failure() -> None:
    text = texts()["docs/reference/failures.md"]
    for entry in FAILURES.values():
        retried = "yes" if entry.retryable else "no"
        assert f"| `{entry.code}` | {entry.layer} | {retried} | {entry.meaning} | {entry.hint} |" in text


def test_reference_lists_every_kind() -> None:
    text = texts()["docs/reference/techniques.md"]
    for section, entries in catalog().items():
        if section not in ("failure", *SPEC_FIELDS_OF):
            assert [e["kind"] for e in entries if f"`{e['kind']}`" not in text] == [], section


def test_reference_lists_every_route() -> None:
    text = texts()["docs/reference/http.md"]
    for path, item in openapi_document()["paths"].items():
        for method in item:
            assert f"### {method.upper()} {path} " in text


def test_reference_lists_every_prometheus_metric() -> None:
    text = texts()["docs/reference/prometheus.md"]
    assert len(prometheus_families()) > 40
    assert [name for name in prometheus_families() if f"| `{name}` |" not in text] == []
