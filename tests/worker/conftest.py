"""A worker's place on each database."""

from __future__ import annotations

from pathlib import Path

import pytest
from place import Place, make_place


@pytest.fixture
def place(database_url: str, tmp_path: Path) -> Place:
    return make_place(database_url, tmp_path)
