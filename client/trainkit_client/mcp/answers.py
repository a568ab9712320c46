"""What the tools answer with: small typed documents, each with a short text, and a word on what was cut."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import yaml
from mcp_types import CallToolResult, TextContent
from pydantic import BaseModel, ConfigDict

MAX_TEXT = 6000
"""Characters of a tool's text, about 1500 tokens."""
MAX_STRING = 400
LONG_TEXT = 40
"""Characters from which on a text has a line of its own."""


class ToolAnswer(BaseModel):
    """The base of the tools' answers."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    cut: list[str] = []
    """What was left out, and how to see it."""


class BudgetLeft(BaseModel):
    """What the key may still train; null: no bound."""

    jobs: int | None
    compute_seconds: float | None


class StatusAnswer(ToolAnswer):
    """Where the caller stands."""

    project: str | None
    role: str | None
    can_train: bool
    budget_left: BudgetLeft | None
    version: str
    devices: list[str]
    active_jobs: list[str]


class CatalogAnswer(ToolAnswer):
    """Kinds that a spec can name."""

    sections: dict[str, list[str]] = {}
    """Section to its kinds, where no section was named."""
    kinds: dict[str, str] = {}
    """Kind to description and fields, where a section was named."""
    fields: dict[str, str] = {}
    """Field to type, default and description, where a kind was named."""
    description: str | None = None


class DatasetAnswer(ToolAnswer):
    """A dataset and what its check found; or a list of datasets."""

    dataset: str | None = None
    name: str | None = None
    state: str | None = None
    kind: str | None = None
    samples: int | None = None
    target: str | None = None
    classes: dict[str, int] | None = None
    columns: list[str] | None = None
    shape: str | None = None
    findings: list[str] = []
    error: str | None = None
    datasets: list[str] = []


class ValidationAnswer(ToolAnswer):
    """Whether a spec can be trained, and what it would take."""

    valid: bool
    problems: list[str] = []
    warnings: list[str] = []
    estimate: dict[str, float] | None = None
    chosen: dict[str, Any] | None = None
    """What the service filled in where the spec named nothing, and what it took from the spec."""
    budget_left: BudgetLeft | None = None


class JobAnswer(ToolAnswer):
    """A job, or an experiment, at this moment; or what one would be, where nothing was submitted."""

    id: str | None = None
    name: str | None = None
    state: str
    ended: bool
    progress: str | None = None
    stop_reason: str | None = None
    error: str | None = None
    metrics: dict[str, str] = {}
    """Best values of the validation metrics, with their half 95 % interval where it is known; test metrics at the end."""
    curve: str | None = None
    """The monitored metric over the epochs, some points of it."""
    verdict: str | None = None
    """The main verdict of the diagnosis, once the job has ended."""
    recommendations: int | None = None
    model: str | None = None
    max_seconds: float | None = None
    """The job's time limit, which the budget may have cut."""
    budget_left: BudgetLeft | None = None
    trials: list[str] = []
    validation: ValidationAnswer | None = None
    """Of a dry run: what was found of the spec."""


class ComparisonAnswer(ToolAnswer):
    """Jobs side by side, the best first."""

    metric: str
    jobs: list[dict[str, Any]]
    differences: dict[str, list[Any]]
    """Pointer into the spec to its value in each of the jobs, in their order; what is equal is left out."""
    verdict: str


class DiagnosisAnswer(ToolAnswer):
    """Why a run went as it did, and what to try next."""

    job: str
    final: bool
    verdicts: list[str]
    suspects: list[str] = []
    recommendations: list[dict[str, Any]] = []
    """Each with its `index`, for apply_recommendation."""
    harmful: list[str] = []
    investigation: str | None = None


class EvaluationAnswer(ToolAnswer):
    """Measured quality of a model."""

    model: str | None
    split: str | None
    samples: int | None
    metrics: dict[str, float | None]
    worst_classes: list[str] = []
    confusions: list[str] = []
    warnings: list[str] = []


class HistoryAnswer(ToolAnswer):
    """What was tried, in the order of submission."""

    metric: str | None
    tried: list[str]
    best: str | None
    plateau: str | None
    """Whether the last jobs made it better by more than noise."""
    notes: list[str] = []


class AnswerDumper(yaml.SafeDumper):
    """YAML with a line for each sentence of a list, and everything short beside each other."""

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> yaml.SequenceNode:
        """Write texts below each other."""
        node = super().represent_sequence(tag, sequence, flow_style)
        if any(isinstance(item, str) and len(item) > LONG_TEXT for item in sequence):
            node.flow_style = False
        return node

    def represent_mapping(self, tag: str, mapping: Any, flow_style: bool | None = None) -> yaml.MappingNode:
        """Write fields with texts below each other."""
        node = super().represent_mapping(tag, mapping, flow_style)
        if any(isinstance(item, str) and len(item) > LONG_TEXT for item in mapping.values()):
            node.flow_style = False
        return node


def result_of(answer: ToolAnswer) -> CallToolResult:
    """Return an answer as the protocol's result: the document, and the same as short YAML."""
    whole = shortened(answer.model_dump(mode="json"))
    brief = shortened(answer.model_dump(mode="json", exclude_defaults=True, exclude_none=True))
    text = yaml.dump(
        brief, Dumper=AnswerDumper, sort_keys=False, default_flow_style=None, allow_unicode=True, width=1000
    ).strip()
    if len(text) > MAX_TEXT:
        text = f"{text[:MAX_TEXT]}\ncut: {len(text) - MAX_TEXT} characters of this answer; ask for less at once"
    return CallToolResult(content=[TextContent(type="text", text=text)], structured_content=whole)


def shortened(value: Any) -> Any:
    """Return JSON data with numbers of four digits and strings of bounded length."""
    match value:
        case bool() | None | int():
            return value
        case float():
            return number(value)
        case str():
            return clip(value)
        case Mapping():
            return {str(name): shortened(item) for name, item in value.items()}
        case _:
            return [shortened(item) for item in value]


def number(value: float | None) -> float | None:
    """Return a number with four digits, a whole one without a point; None for one that is not finite."""
    if value is None or not math.isfinite(value):
        return None
    rounded = float(f"{value:.4g}")
    return int(rounded) if rounded.is_integer() else rounded


def show(value: Any) -> str:
    """Return a value in a few characters."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return clip(value if isinstance(value, str) else json.dumps(value, separators=(",", ":")), 120)


def clip(text: str, length: int = MAX_STRING) -> str:
    """Return at most `length` characters of a text."""
    return text if len(text) <= length else f"{text[: length - 4]} ..."


def first(items: Iterable[Any], most: int, cut: list[str], what: str) -> list[Any]:
    """Return the first items of a list, and note in `cut` how many there are more."""
    known = list(items)
    if len(known) > most:
        cut.append(f"{len(known) - most} of {len(known)} {what}")
    return known[:most]
