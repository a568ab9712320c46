"""The Prometheus exposition: metrics of this process, or of all processes of one service, and gauges of its state."""

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
    """Renders metrics and collectors.

    Args:
        metrics: this process's, used without `folder`.
        collectors: computed at every scrape.
        folder: where several processes keep their metrics, which are then exposed together.
    """

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
        """Return (body, media type): OpenMetrics where `accept` names it, else the text format."""
        if self._folder is not None:
            remove_dead_gauges(self._folder)
        # not the header itself: an unknown version or escaping in it would raise
        encode, media_type = choose_encoder(f"{OPENMETRICS}; version=1.0.0" if OPENMETRICS in accept else "")
        return encode(self.registry), media_type


def remove_dead_gauges(folder: Path) -> None:
    """Delete live gauges of processes that have ended. Their counters stay: they must never decrease."""
    for file in folder.glob("gauge_live*.db"):
        found = LIVE_FILE.fullmatch(file.name)
        if found and not Path("/proc", found[1]).exists() and Path("/proc").exists():
            mark_process_dead(int(found[1]), str(folder))
