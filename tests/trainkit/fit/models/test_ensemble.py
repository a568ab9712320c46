from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import trainkit as tk
from tests.support.fit_data import numbers, spec, vectors
from trainkit.data import Dataset, split_indices
from trainkit.fit import EnsembleModel
from trainkit.spec.split import SplitSpec


class Member:
    """A member that answers what it is told."""

    def __init__(self, answer: Any, classes: tuple[str, ...] | None = ("a", "b", "c")) -> None:
        self.table_encoders, self.sequence_table = (), None
        self.given, self.classes, self.description = np.array(answer, float), classes, {}

    def answer(self, _x: Any) -> np.ndarray:
        return self.given


def labels(method: str, *answers: Any, weights: list[float] | None = None) -> list[str]:
    return [p["label"] for p in EnsembleModel([Member(a) for a in answers], method, weights).predict(None)]


def test_average_and_vote_by_hand():
    answers = [[[0.4, 0.6, 0.0]], [[0.4, 0.6, 0.0]], [[1.0, 0.0, 0.0]]]
    assert labels("average", *answers) == ["a"]  # 0.6 against 0.4
    assert labels("vote", *answers) == ["b"]  # two against one
    assert labels("vote", *answers, weights=[1, 1, 3]) == ["a"]


def test_tied_votes_go_to_the_larger_mean_probability():
    assert labels("vote", [[0.5, 0.3, 0.2]], [[0.1, 0.8, 0.1]]) == ["b"]
    assert labels("vote", [[0.9, 0.05, 0.05]], [[0.3, 0.4, 0.3]]) == ["a"]


def test_classes_in_another_order_are_matched_by_name():
    ensemble = EnsembleModel([Member([[1, 0, 0]]), Member([[0, 0, 1]], ("b", "c", "a"))], "average")
    assert ensemble.predict(None)[0]["probabilities"] == {"a": 1.0, "b": 0.0, "c": 0.0}


def test_members_must_answer_the_same_question():
    with pytest.raises(ValueError, match="member 1 predicts"):
        EnsembleModel([Member([[1, 0, 0]]), Member([[1, 0]], ("a", "b"))], "average")
    with pytest.raises(ValueError, match="at least two"):
        EnsembleModel([Member([[1, 0, 0]])], "average")


def test_values_are_averaged():
    ensemble = EnsembleModel([Member([[1.0]], None), Member([[4.0]], None)], "average", [1, 2])
    assert ensemble.predict(None) == [{"value": pytest.approx(3.0)}]


@pytest.mark.parametrize("make", [vectors, numbers])
def test_a_job_of_kind_ensemble(make, tmp_path):
    data, events = make(), []
    members = [tk.fit(spec({"kind": "mlp"}, train={"seed": seed}), data).model for seed in (0, 1)]
    folders = [members[0].save(tmp_path / "0"), members[1]]
    document = spec({"kind": "ensemble", "members": ["mdl_1", "mdl_2"]})
    result = tk.fit(document, data, source=folders, on_event=events.append, workdir=tmp_path)
    assert events[-1]["type"] == "finished"
    assert result.evaluation["samples"] == data.facts.samples // 10
    x = data.inputs.values[:4]
    mean = np.mean([member.answer(x) for member in members], axis=0)
    assert result.model.answer(x) == pytest.approx(mean)
    assert tk.load_model(events[-1]["artifact"]).predict(x) == result.model.predict(x)
    assert result.evaluation["metrics"]["loss"] >= 0


def test_members_of_other_classes_are_refused(tmp_path):
    members = [tk.fit(spec({"kind": "linear"}, train={"seed": s}), vectors()).model for s in (0, 1)]
    other = vectors()
    renamed = Dataset.from_arrays(other.inputs.values, other.targets, classes=["x", "y", "z"])
    with pytest.raises(tk.SpecError, match="the members predict"):
        tk.fit(spec({"kind": "ensemble", "members": ["a", "b"]}), renamed, source=members)
    with pytest.raises(tk.SpecError, match="not given"):
        tk.fit(spec({"kind": "ensemble", "members": ["a", "b"]}), vectors())


@pytest.mark.parametrize("split", [{"folds": 3}, {}], ids=["folds", "draws"])
def test_members_of_folds_or_draws_are_measured_on_their_common_test_part_alone(split: dict[str, Any]) -> None:
    """By hand: the mean of their probabilities on the rows that no member has trained on."""
    data, members = vectors(), []
    for number in range(3):
        cut = {**split, "fold": number} if split else {"resample_seed": number}
        members.append(tk.fit(spec({"kind": "mlp", "hidden": [4]}, split=cut), data).model)
    model = {"kind": "ensemble", "members": ["job_a", "job_b", "job_c"]}
    first = {**split, "fold": 0} if split else {"resample_seed": 0}
    result = tk.fit(spec(model, split=first), data, source=members)
    assert result.evaluation is not None
    assert result.evaluation["parts"].keys() == {"test"}
    rows = split_indices(SplitSpec(train=9, validation=0), 120, np.asarray(data.targets)).test
    chances = np.mean([member.answer(data.inputs.values[rows]) for member in members], axis=0)
    expected = (chances.argmax(1) == np.asarray(data.targets)[rows]).mean()
    assert result.evaluation["parts"]["test"]["accuracy"] == pytest.approx(expected)
    assert result.evaluation["samples"] == len(rows) == 12
