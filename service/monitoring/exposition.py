"""The exposition: this process's metrics, those of its siblings if it has any, and how things stand."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

OPENMETRICS = "application/openmetrics-text"
LIVE_FILE = re.compile(r"gauge_live\w*_(\d+)\.db")


class Exposition:
    """`folder`: where the processes that tell together keep their metrics; None for a process that tells its own."""

    def __init__(
        self, metrics: Sequence[MetricWrapperBase], collectors: Sequence[Collector], folder: Path | None = None
    ) -> None:
        self._folder = folder
        self.registry = CollectorRegistry()
        if folder is not None:
            MultiProcessCollector(self.registry, str(folder))
        else:
            ProcessCollector(registry=self.registry)
            for metric in metrics:
                self.registry.register(metric)
        for collector in collectors:
            self.registry.register(collector)

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """(body, media type): OpenMetrics for who asks for it, else the text format."""
        if self._folder is not None:
            forget_the_dead(self._folder)
        # not the header itself: a version or escaping that nobody knows is no reason to fail
        encode, media_type = choose_encoder(f"{OPENMETRICS}; version=1.0.0" if OPENMETRICS in accept else "")
        return encode(self.registry), media_type


def forget_the_dead(folder: Path) -> None:
    """A gauge of a process that is gone says nothing any more. Its counters stay: they must never go backwards."""
    for file in folder.glob("gauge_live*.db"):
        found = LIVE_FILE.fullmatch(file.name)
        if found and not Path("/proc", found[1]).exists() and Path("/proc").exists():
            mark_process_dead(int(found[1]), str(folder))
