"""A diagnosis of any record is an answer: runs that are constant, perfect, not finite, or hardly begun as well."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.support.diagnosis_records import facts, record, table
from trainkit.diagnose.attainable import Attainable
from trainkit.diagnose.causes import EXPLAINS
from trainkit.diagnose.diagnosis import diagnose
from trainkit.diagnose.verdicts import Code

LOSSES = ("train_loss", "val_loss")
SHARES = ("train_accuracy", "val_accuracy", "val_recall", "train_dead_units", "train_saturated_units")
ERRORS = ("val_loss_se", "val_accuracy_se", "val_loss_rise_se", "val_r2_se")
OTHERS = ("train_lr", "train_grad_norm", "train_weight_norm", "val_r2", "val_mse", "val_mae")
EXTREME = st.sampled_from([0.0, 1e-30, 1e30, float("nan"), float("inf")])


def values(length: int, usual: st.SearchStrategy[float], *, shares: bool) -> st.SearchStrategy[list[float]]:
    """A constant series, one of usual values, or, unless they are shares, one with extreme values among them."""
    constant = usual.map(lambda value: [value] * length)
    several = st.lists(usual if shares else usual | EXTREME, min_size=length, max_size=length)
    return constant | st.lists(usual, min_size=length, max_size=length) | several


@st.composite
def series(draw: st.DrawFn) -> dict[str, list[float]]:
    """The logged series, of one length."""
    length = draw(st.integers(1, 14))
    share = st.floats(0, 1) | st.sampled_from([0.0, 1.0])
    kinds = {
        **dict.fromkeys(LOSSES, st.floats(0, 5)),
        **dict.fromkeys(SHARES, share),
        **dict.fromkeys(ERRORS, st.sampled_from([0.0, 0.0, 0.01, 0.1])),
        **dict.fromkeys(OTHERS, st.floats(0, 20)),
    }
    logged = {name: draw(values(length, usual, shares=name in SHARES)) for name, usual in kinds.items()}
    trained_only = draw(st.booleans()) and draw(st.booleans())  # before the first evaluation
    return {name: found for name, found in logged.items() if not (trained_only and name.startswith("val_"))}


REFERENCES = [
    None,
    Attainable("accuracy", 1.0, 1.0, 1.0, "logistic regression", (), 400, 1600, 1.0, 1.0, 20.0, True, "a key"),
    Attainable("accuracy", 0.1, 0.0, 0.2, "constant", (), 400, 1600, 1.0, 1.0, 20.0, True, "a key"),
]
EVALUATIONS: list[dict[str, Any] | None] = [
    None,
    {"confusion_matrix": [[0] * 10 for _ in range(10)], "classes": [str(k) for k in range(10)]},
    {"confusion_matrix": [[0] * 9 + [40] for _ in range(10)], "classes": [str(k) for k in range(10)]},
]


def test_no_cause_explains_itself() -> None:
    """Verdicts are ordered by chains of causes, which must end."""

    def explained(code: Code, above: tuple[Code, ...]) -> None:
        assert code not in above, " -> ".join([*above, code])
        for symptom in EXPLAINS.get(code, ()):
            explained(symptom, (*above, code))

    for code in EXPLAINS:
        explained(code, ())


@given(
    series(),
    st.sampled_from(REFERENCES),
    st.sampled_from(EVALUATIONS),
    st.sampled_from(["completed", "early_stop", "diverged"]),
)
def test_classes(logged: dict[str, list[float]], reference: Any, evaluation: Any, ended: str) -> None:
    found = diagnose(record(None, facts(), ended=ended, attainable=reference, evaluation=evaluation, **logged))
    assert found.verdicts
    assert all(0 <= verdict.confidence <= 1 for verdict in found.verdicts)
    json.dumps(found.as_dict())


@given(series(), st.sampled_from(["completed", "early_stop", "diverged"]))
def test_numbers(logged: dict[str, list[float]], ended: str) -> None:
    found = diagnose(record({"model": {"kind": "mlp"}}, table(), ended=ended, **logged))
    assert found.verdicts
    assert all(0 <= verdict.confidence <= 1 for verdict in found.verdicts)
