"""A job's spec is resolved once: only these modules call `resolve`, and a stored spec is read back as it was made."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from trainkit.spec import DatasetFacts, SpecError, load_resolved, resolve

ROOT = Path(__file__).parents[3]
PACKAGES = ("service", "worker", "client/trainkit_client")
FACTS = DatasetFacts(kind="arrays", samples=100, input_shape=(4,), target_type="class", classes={"a": 40, "b": 60})
SERIES = DatasetFacts(kind="arrays", samples=200, input_shape=(3,), target_type="none")


def calls_of_resolve(path: Path) -> bool:
    """Whether the module calls the function `resolve`, and no method of that name."""
    calls = (node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call))
    return any(isinstance(call.func, ast.Name) and call.func.id == "resolve" for call in calls)


def test_service_resolves_in_one_module_and_worker_in_none() -> None:
    found = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if calls_of_resolve(path)
    }
    assert found == {"service/jobs/service.py"}


@pytest.mark.parametrize(
    ("document", "facts"),
    [
        ({"dataset": "d", "model": {"kind": "mlp"}, "regularize": {"max_norm": 3}}, FACTS),
        ({"dataset": "d", "model": {"kind": "rbf_svm"}, "augment": [{"kind": "noise"}]}, FACTS),
        ({"dataset": "d", "model": {"kind": "lstm"}, "task": "forecasting"}, SERIES),
    ],
)
def test_load_resolved_restores_what_resolve_made(document: dict[str, object], facts: DatasetFacts) -> None:
    resolved = resolve(document, facts)
    stored = load_resolved(resolved.spec.model_dump(mode="json"), facts)
    assert (stored.spec, stored.sample, stored.outputs) == (resolved.spec, resolved.sample, resolved.outputs)


def test_load_resolved_refuses_a_spec_that_was_never_resolved() -> None:
    with pytest.raises(SpecError) as refused:
        load_resolved({"dataset": "d", "model": {"kind": "mlp"}}, FACTS)
    assert [(one.pointer, one.code) for one in refused.value.problems] == [("/task", "not_resolved")]
