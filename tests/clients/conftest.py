"""The document and the tools that generate clients from it, once for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.client_tools import ClientTools, client_tools, write_document


@pytest.fixture(scope="session")
def tools() -> ClientTools:
    return client_tools()


@pytest.fixture(scope="session")
def document(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_document(tmp_path_factory.mktemp("openapi") / "openapi.json")
