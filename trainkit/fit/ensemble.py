"""Several trained models that predict together: averaging reduces variance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trainkit.fit.predict import Prediction, TrainedModel, as_predictions


class EnsembleModel:
    """Predicts like a model: `average` of probabilities or values, or `vote` of labels.

    Ties of votes go to the larger mean probability.

    Raises ValueError when the members do not predict the same classes, or the same number of values.
    """

    def __init__(
        self,
        members: Sequence[TrainedModel | EnsembleModel],
        method: Literal["average", "vote"],
        weights: Sequence[float] | None = None,
        description: dict[str, Any] | None = None,
    ) -> None:
        if len(members) < 2:
            raise ValueError("an ensemble has at least two members")
        first: TrainedModel | EnsembleModel = members[0]
        for number, member in enumerate(members):
            if (member.classes is None) != (first.classes is None) or set(member.classes or ()) != set(
                first.classes or ()
            ):
                raise ValueError(
                    f"member {number} predicts {list(member.classes or ['numbers'])}, "
                    f"member 0 predicts {list(first.classes or ['numbers'])}"
                )
        self.members = tuple(members)
        self.method = method
        given = np.ones(len(members)) if weights is None else np.asarray(weights, np.float64)
        self.weights: NDArray[np.float64] = given / given.sum()
        self.classes: tuple[str, ...] | None = first.classes
        self.description = dict(description or {})

    @property
    def metrics(self) -> dict[str, Any]:
        """Metrics of each part, `{"val": {...}, "test": {...}}`."""
        metrics: dict[str, Any] = self.description.get("metrics", {})
        return metrics

    def predict(self, x: Any) -> list[Prediction]:
        """Like `TrainedModel.predict`."""
        answer = self.answer(x)
        if self.classes is None:
            return [{"value": row[0] if len(row) == 1 else row} for row in answer.tolist()]
        return as_predictions(answer, answer.argmax(1), self.classes)

    def answer(self, x: Any) -> NDArray[np.float64]:
        """(n, K) probabilities, or (n, k) values in the targets' own units, of what a client sends."""
        return self._combine([member.answer(x) for member in self.members])

    def answer_rows(self, inputs: Any, index: NDArray[np.int64]) -> NDArray[np.float64]:
        """The same of a dataset's rows."""
        return self._combine([member.answer_rows(inputs, index) for member in self.members])

    def _combine(self, answers: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
        if self.classes is None:
            return np.asarray(np.einsum("m,mnk->nk", self.weights, np.stack(answers)))
        each = np.stack([in_order(own, m.classes, self.classes) for own, m in zip(answers, self.members, strict=True)])
        mean = np.asarray(np.einsum("m,mnk->nk", self.weights, each))
        if self.method == "average":
            return mean
        votes = np.zeros_like(mean)
        for weight, own in zip(self.weights, each, strict=True):
            votes[np.arange(len(own)), own.argmax(1)] += weight
        # Rounded so that equal sums of weights compare equal; the mean then breaks ties and nothing else.
        broken = np.round(votes, 9) + 1e-10 * mean
        return np.asarray(broken / broken.sum(1, keepdims=True))

    def save(self, folder: str | Path) -> Path:
        """Each member in a folder of its own, and a manifest."""
        from trainkit.fit.artifact import FORMAT, write_manifest

        folder = Path(folder)
        for number, member in enumerate(self.members):
            member.save(folder / f"member-{number}")
        manifest = {
            "format": FORMAT,
            "kind": "ensemble",
            "method": self.method,
            "weights": self.weights.tolist(),
            "classes": None if self.classes is None else list(self.classes),
            "members": [member.description.get("name", "") for member in self.members],
            "metrics": self.metrics,
            "description": self.description,
        }
        write_manifest(folder, manifest)
        return folder


def in_order(shares: NDArray[np.float64], own: tuple[str, ...] | None, wanted: tuple[str, ...]) -> NDArray[np.float64]:
    """Columns of (n, K) moved from one order of classes to another."""
    assert own is not None
    return shares[:, [own.index(name) for name in wanted]]
