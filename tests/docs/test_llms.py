"""llms.txt: every page is listed once, with a line about it, and each link leads to a text that is served."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from docs.generate import pages
from docs.llms import llms_files, write
from service import errors
from service.api_docs import routes
from tests.support.markdown import ROOT, written_pages


@cache
def files() -> dict[str, str]:
    return llms_files(pages())


def test_the_contents_list_every_page_once() -> None:
    contents = files()["llms.txt"]
    assert contents.startswith("# trainkit\n\n> A self-hosted REST service")
    linked = re.findall(r"^- \[[^\]]+\]\(docs/pages/([^)]+)\)", contents, re.M)
    written = {str(path.relative_to(ROOT / "docs")) for path in written_pages() if path.is_relative_to(ROOT / "docs")}
    assert sorted(linked) == sorted({*written, *pages()} - {"index.md"})
    assert len(contents) < 16_000, "about 4000 tokens"


def test_the_whole_text_has_every_page_but_the_largest() -> None:
    whole = files()["llms-full.txt"]
    assert "# Let an agent train by MCP" in whole
    assert "reference/spec.md" in whole
    assert "<!-- reference/http.md -->" not in whole


def test_the_texts_are_served_without_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(files(), tmp_path)
    monkeypatch.setattr(routes, "TEXTS", tmp_path)
    routes.text_files.cache_clear()
    app = FastAPI()
    errors.install(app)
    routes.install(app)
    client = TestClient(app)
    contents = client.get("/llms.txt")
    assert (contents.status_code, contents.headers["content-type"]) == (200, "text/plain; charset=utf-8")
    links = re.findall(r"\]\(((?:docs/pages/|llms)[^)]+)\)", contents.text)
    assert len(links) > 40
    for link in links:
        assert client.get(f"/{link}").status_code == 200, link
    missing = client.get("/docs/pages/how-to/nothing.md")
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
    assert client.get("/docs/pages/../../etc/passwd").status_code == 404
    routes.text_files.cache_clear()


def test_a_service_without_the_texts_says_how_to_build_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "TEXTS", tmp_path)
    routes.text_files.cache_clear()
    app = FastAPI()
    errors.install(app)
    routes.install(app)
    assert "docs.llms" in TestClient(app).get("/llms.txt").json()["detail"]
    routes.text_files.cache_clear()
