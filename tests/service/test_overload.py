"""Full size, as `python -m benchmarks load` measures it. Only where the machine does little else: times are absolute."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import load
from benchmarks.open_loop import quantile
from benchmarks.service import databases

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]
KINDS = ("SQLite", "PostgreSQL")


@pytest.fixture(scope="module")
def urls() -> Iterator[tuple[Path, dict[str, str]]]:
    with tempfile.TemporaryDirectory(prefix="trainkit-load-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with databases(folder) as found:
            yield folder, found


@pytest.mark.parametrize("kind", KINDS)
def test_a_long_queue_and_a_long_history_leave_every_request_as_fast(
    urls: tuple[Path, dict[str, str]], kind: str
) -> None:
    folder, databases_by_kind = urls
    url = databases_by_kind[kind]
    empty_url = load.beside(url, folder)
    with load.served(folder / f"{kind}-empty", empty_url) as empty, load.served(folder / kind, url) as full:
        ratios = load.flat(empty, full, load.FULL)
        found = load.locks(full)
    slow = {
        name: ratio for name, ratio in ratios.items() if ratio > 2 and name.startswith(("GET job", "POST", "claim"))
    }
    assert not slow
    assert quantile(found.seconds, 0.99) < 0.050
    assert kind != "SQLite" or quantile(found.seconds, 1.0) < 0.100
    assert not found.failed


@pytest.mark.parametrize("kind", KINDS)
def test_ten_times_the_capacity_for_a_minute(urls: tuple[Path, dict[str, str]], kind: str) -> None:
    folder, databases_by_kind = urls
    found = load.overload(folder, kind, databases_by_kind[kind], load.OVERLOAD_SECONDS)
    answers, health = found.generated.answers, found.generated.health
    assert set(answers.seconds) <= {200, 201, 429, 503}
    assert (answers.broken, answers.without_retry_after, found.lost) == (0, 0, 0)
    assert answers.quantile(0.99, 429, 503) < 1.1
    assert answers.quantile(0.99, 200, 201) < 2.0
    assert health.quantile(0.99, 200) < 0.100
    assert (set(health.seconds), health.broken, health.unsent) == ({200}, 0, 0)
    assert found.beside_lists.quantile(0.99, 200) < 0.100
    assert found.growth_bytes < 100 * 2**20
    assert found.recovered > 0.8 * found.capacity
