"""Limits of reading processes: a share of the machine for each slot, and what was inherited."""

from __future__ import annotations

import json
import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.settings import Settings
from service.workers import repository as workers
from tests.support import hostile_bombs, hostile_files
from tests.support.measured_reader import read_upload
from tests.support.worker_context import Place
from trainkit.data.errors import InputError
from trainkit.data.limits import MIB, ReadLimits, limited
from trainkit.data.load import load_dataset
from trainkit.data.process_pool import LEAST_SHARE, ProcessPool
from trainkit.data.table.column_format import ColumnFormat
from trainkit.data.table.dialect import Dialect
from trainkit.data.table.request_rows import read_request, records_of
from trainkit.data.table.table_format import TableFormat
from worker import exit_errors, reader_limits
from worker.processes import fork

GIB = 2**30
SETTINGS = Settings.from_env({})
FORMAT = TableFormat(
    dialect=Dialect(), columns=tuple(ColumnFormat(name=name, type="category", typed=True) for name in ("a", "y"))
)


def in_child(tmp_path: Path, work: Any) -> Any:
    """What `work` returns in a forked process, so that its limits do not stay."""

    def run() -> None:
        (tmp_path / "result").write_text(json.dumps(work()))

    ended = fork(run, log=tmp_path / "log").wait()
    assert ended.clean, (tmp_path / "log").read_text()
    return json.loads((tmp_path / "result").read_text())


def test_memory_is_shared_among_the_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exit_errors, "memory_limit", lambda: 10 * GIB)
    assert reader_limits.limits_of(SETTINGS, 1).read.memory == 8 * GIB
    assert reader_limits.limits_of(SETTINGS, 4).read.memory == 2 * GIB
    assert reader_limits.limits_of(SETTINGS, 400).read.memory == reader_limits.LEAST_MEMORY
    chosen = replace(SETTINGS, reader_memory_bytes=3 * GIB, max_table_columns=7, max_table_cells=9, max_expansion=5)
    assert reader_limits.limits_of(chosen, 4).read == ReadLimits(3 * GIB, 7, 9, 5)


def test_slots_of_all_workers_of_the_host_count(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exit_errors, "memory_limit", lambda: 10 * GIB)
    monkeypatch.setattr(reader_limits.socket, "gethostname", lambda: "host-of-this-test")
    about = {"pid": 1, "queues": [], "device": "cpu", "versions": {}}
    with place.context.sessions.begin() as session:
        for number, (host, slots) in enumerate((("host-of-this-test", 2), ("host-of-this-test", 3), ("another", 9))):
            workers.record_heartbeat(session, f"w{number}", host=host, slots=slots, **about)
    assert reader_limits.reader_limits(place.context).read.memory == int(8 * GIB / 5)


def test_a_low_hard_limit_is_no_error_and_is_named(tmp_path: Path) -> None:
    def work() -> Any:
        held = reader_limits.data_bytes()
        resource.setrlimit(resource.RLIMIT_DATA, (held + 300 * MIB, held + 300 * MIB))
        resource.setrlimit(resource.RLIMIT_CPU, (50, 50))
        limits = reader_limits.limits_of(replace(SETTINGS, reader_memory_bytes=4 * GIB), 1)
        reader_limits.apply(limits)
        after = [resource.getrlimit(kind) for kind in (resource.RLIMIT_DATA, resource.RLIMIT_CPU)]
        return limits.read.memory // MIB, limits.memory_hint, [list(one) for one in after], held

    memory, hint, (data, cpu), held = in_child(tmp_path, work)
    assert 250 <= memory <= 300
    assert "`ulimit -d`" in hint
    assert data[1] <= held + 300 * MIB
    assert cpu == [49, 50]


def test_a_dataset_is_read_below_a_low_hard_limit(tmp_path: Path) -> None:
    """Before, every dataset became invalid: the reader asked for more than its hard limit, which is refused."""
    (tmp_path / "t.csv").write_bytes(b"x,label\n" + b"1,a\n2,b\n" * 40)

    def work() -> Any:
        held = reader_limits.data_bytes()
        resource.setrlimit(resource.RLIMIT_DATA, (held + 400 * MIB, held + 400 * MIB))
        reader_limits.apply(reader_limits.limits_of(SETTINGS, 1))
        with limited(reader_limits.limits_of(SETTINGS, 1).read):
            return load_dataset(tmp_path / "t.csv").facts.samples

    assert in_child(tmp_path, work) == 80


def test_decoders_share_what_their_parent_may_use(tmp_path: Path) -> None:
    def work() -> Any:
        held = reader_limits.data_bytes()
        resource.setrlimit(resource.RLIMIT_DATA, (held + 5 * LEAST_SHARE, held + 5 * LEAST_SHARE))
        resource.setrlimit(resource.RLIMIT_CPU, (1000, 1000))
        with ProcessPool(lambda _: [resource.getrlimit(k)[1] for k in (2, resource.RLIMIT_CPU)], size=32) as pool:
            (_, (data, cpu)), *_ = pool.map([1])
            return (data - held) // MIB, cpu, pool._size

    data, cpu, size = in_child(tmp_path, work)
    assert 4 <= size <= 5
    assert data <= 5 * LEAST_SHARE // MIB // size + 50
    assert cpu == 1000 // size


def test_memory_beyond_every_estimate_ends_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that is wrong about what it needs is stopped by the kernel's limit, and says so."""
    from trainkit.data import load

    monkeypatch.setattr(load, "read_arrays", lambda *_, **__: np.ones(2 * GIB // 8))
    upload = tmp_path / "upload.npz"
    upload.write_bytes(hostile_files.npz(X=np.eye(3)))
    reading = read_upload(upload, tmp_path)
    assert (reading.state, reading.error["code"]) == ("invalid", "intake_died")
    assert "(512 MiB)" in reading.error["message"]
    assert "TRAINKIT_READER_MEMORY_BYTES" in reading.error["hint"]
    assert reading.grown_bytes < 600 * MIB


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (hostile_bombs.many_row_groups, "12,000,000 rows"),
        (hostile_bombs.unique_keys(9000), "9,000 columns"),
        (hostile_bombs.far_cells, "cells"),
        (lambda: hostile_bombs.parquet({"a": [None] * 10_000_000}), "10,000,000 rows"),
    ],
    ids=["parquet", "json lines", "excel", "gaps"],
)
def test_rows_of_a_request_have_the_same_limits(body: Any, word: str) -> None:
    raw = body()
    with limited(ReadLimits(512 * MIB, source_bytes=len(raw))), pytest.raises(InputError) as refused:
        read_request(FORMAT, raw, "application/octet-stream", ["a", "y"])
    assert word in str(refused.value)


def test_json_rows_of_a_request_have_the_same_limits() -> None:
    rows = [{f"k{number}": 1} for number in range(9000)]
    with limited(ReadLimits(512 * MIB, source_bytes=100_000)), pytest.raises(InputError) as refused:
        records_of(rows, ["a"], strict=True)
    assert "9,000 columns" in str(refused.value)


def test_long_text_of_a_request_is_held_once() -> None:
    raw = hostile_bombs.repeated_text()
    with limited(ReadLimits(512 * MIB, source_bytes=len(raw))):
        rows = read_request(FORMAT, raw, "application/octet-stream", ["a", "y"])
    assert rows.count == 120_000
    assert len({id(text) for text in rows.columns["a"]}) == 2
