"""Several trained models that predict together: averaging reduces variance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trainkit.fit.predict import Prediction, TrainedModel, as_predictions


class EnsembleModel:
    """Predicts like a model. `average` of probabilities or values; `vote` of labels, ties to the larger mean probability.

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
        first = members[0]
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
        self.classes = first.classes
        self.description = dict(description or {})

    @property
    def metrics(self) -> dict[str, Any]:
        """Metrics of each part, `{"val": {...}, "test": {...}}`."""
        metrics: dict[str, Any] = self.description.get("metrics", {})
        return metrics

    def predict(self, x: Any) -> list[Prediction]:
        """Like `TrainedModel.predict`."""
        if self.classes is None:
            return [{"value": row[0] if len(row) == 1 else row} for row in self.values(x).tolist()]
        shares = self.shares(x)
        return as_predictions(shares, shares.argmax(1), self.classes)

    def shares(self, x: Any) -> NDArray[np.float64]:
        """(n, K): mean probabilities, or the share of votes plus a tie-break below any one vote."""
        assert self.classes is not None
        each = np.stack([_probabilities(member, x, self.classes) for member in self.members])
        mean = np.einsum("m,mnk->nk", self.weights, each)
        if self.method == "average":
            return mean
        votes = np.zeros_like(mean)
        for weight, own in zip(self.weights, each, strict=True):
            votes[np.arange(len(own)), own.argmax(1)] += weight
        # The smallest difference between sums of votes decides first; the mean only breaks exact ties.
        broken = votes + 1e-6 * mean
        return np.asarray(broken / broken.sum(1, keepdims=True))

    def values(self, x: Any) -> NDArray[np.float64]:
        """(n, k) mean of the members' values in the targets' own units."""
        each = [np.array([np.atleast_1d(p["value"]) for p in member.predict(x)]) for member in self.members]
        return np.asarray(np.einsum("m,mnk->nk", self.weights, np.stack(each)))

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


def _probabilities(
    member: TrainedModel | EnsembleModel, x: Any, classes: tuple[str, ...]
) -> NDArray[np.float64]:
    """A member's probabilities in the ensemble's order of classes."""
    assert member.classes is not None
    own = member.shares(x) if isinstance(member, EnsembleModel) else member.probabilities(member.outputs(x))
    return own[:, [member.classes.index(name) for name in classes]]
