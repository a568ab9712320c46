"""Reading an exposition as Prometheus does."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

Key = tuple[str, frozenset[tuple[str, str]]]


class Scrape:
    """One scrape: values by name and labels."""

    def __init__(self, text: str, *, openmetrics: bool = False) -> None:
        self.families: list[Metric] = list((parse_openmetrics if openmetrics else parse_text)(text))
        samples = [sample for family in self.families for sample in family.samples]
        self.values: dict[Key, float] = {(s.name, frozenset(s.labels.items())): s.value for s in samples}
        assert len(self.values) == len(samples), "a series is told twice"

    def get(self, name: str, **labels: str) -> float:
        """The value of one series; 0 for one that is not there, as a counter that has not counted."""
        return self.values.get((name, frozenset(labels.items())), 0.0)

    def total(self, name: str, **labels: str) -> float:
        """The sum of the series that have these labels, whatever others they have."""
        selected = labels.items()
        return sum(
            value for (found, found_labels), value in self.values.items() if found == name and selected <= found_labels
        )

    def label(self, name: str) -> set[str]:
        """Every value that this label has anywhere."""
        return {value for _, labels in self.values for key, value in labels if key == name}


def names(families: Iterable[Metric]) -> set[str]:
    """As they are written in queries, without the suffixes of a histogram."""
    return {f"{family.name}_total" if family.type == "counter" else family.name for family in families}
