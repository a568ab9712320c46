"""Wrong labels by votes of models that have not seen them (confident learning, Northcutt, Jiang and Chuang 2021).

A wrong label contradicts the vote however sure the model is; where a dataset says little about its classes, the surer
votes are right far more often. So the share of errors is compared between the surest votes and all of them, and among
these between the surest of all and the others: by wrong labels it stays the same there. And where classes are alike, the
label that a vote contradicts is mostly the model's next choice; a wrong label is any.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from trainkit.diagnose.estimates import wilson_interval
from trainkit.diagnose.sample_scores import SampleScores
from trainkit.diagnose.verdicts import Code

SURE_SHARE = 0.3
"""Share of the votes, the most confident ones, that count as sure."""
LEAST_ERROR = 0.04
"""Share of errors among sure votes from which on labels may be wrong."""
EVEN = 0.5
"""Errors of the sure votes over those of all, from which on confidence does not help: 1 by wrong labels alone."""
GUESSED, MOST_WRONG = 0.85, 0.45
"""Errors over those of guessing from which on votes say nothing; and sure errors that are more than labels are wrong."""
TOP_SHARE, LEVEL = 0.1, 0.7
"""The surest of the sure votes, and the errors of these over those of all sure ones from which on it does not help there."""
POSSIBLE = 0.1
"""Probability by the validation part alone from which on more votes are worth their runs."""
UPPER_SHARE, LEAST_REST, FEWEST_ERRORS = 0.5, 0.01, 5
"""The surer votes, what they must leave for the other classes, and their errors, of which the labels' place is measured."""
FEWEST_VOTES, CONFUSED = 250, 0.8
"""Fewest votes that the regression was fitted on; and `next_choice` from which on classes are confused, not labels wrong."""
LEAST_PREFERENCE = 0.02
"""e - b from which on the model has a next choice."""
INTERCEPT, WEIGHTS = 5.68, (-2.06, 1.5, 0.96, -3.65)
"""Of three and more classes: log-odds of wrong labels are linear in `LabelVotes.features`. Fitted
on votes of scikit-learn's networks on 2,060 draws of the benchmark's datasets with 0, 12, 25 and 40 % of the labels wrong
(`python -m benchmarks.diagnosis.vote_map`). On datasets that were left out of the fit the area under the ROC
curve was 0.95; by the limits above, 0.61."""


@dataclass(frozen=True, slots=True)
class LabelVotes:
    """Shares of labels that votes contradict: of all, of the sure votes with their 95 % interval (Wilson), of the surest."""

    samples: int
    error: float
    sure_samples: int
    sure_error: float
    sure_low: float
    sure_high: float
    top_samples: int
    top_error: float
    classes: int
    next_choice: float | None = None
    """1 where contradicted labels are what the model holds next likely, as often as it says; 0 where they are any class;
    None where it cannot be told: two classes, few errors, or a model without a preference."""
    suspects: tuple[int, ...] = ()
    """Row numbers of the labels that are contradicted most surely, at most 100."""

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {**asdict(self), "suspects": list(self.suspects)}

    @property
    def probability(self) -> float:
        """Probability that labels are wrong; 0 where votes are guessed, or errors, of the sure votes too, are too few.

        With a known `next_choice` and 250 votes: a logistic regression on the errors of all, of the sure and of the surest
        votes, and on `next_choice`; at most 0.5 where the labels are the model's next choice. Else `by_limits`.
        """
        if self.error > GUESSED * (1 - 1 / max(self.classes, 2)) or min(self.error, self.sure_high) < LEAST_ERROR:
            return 0.0
        if self.next_choice is None or self.samples < FEWEST_VOTES:
            return self.by_limits
        z = INTERCEPT + sum(weight * value for weight, value in zip(WEIGHTS, self.features, strict=True))
        likely = 1 / (1 + math.exp(-z))
        return likely if self.next_choice < CONFUSED else min(likely, 0.5)

    @property
    def features(self) -> tuple[float, float, float, float]:
        """What the regression is of: the logits of the errors of all, of the sure and of the surest votes; `next_choice`."""
        errors = _logit(self.error, self.samples), _logit(self.sure_error, self.sure_samples)
        return *errors, _logit(self.top_error, self.top_samples), 0.0 if self.next_choice is None else self.next_choice

    @property
    def by_limits(self) -> float:
        """Probability that the errors are above both limits, by their standard errors.

        Of the sure votes: `LEAST_ERROR`, and `EVEN` of the errors of all; of the surest: `LEVEL` of those of the sure ones.
        """
        if self.error > GUESSED * (1 - 1 / max(self.classes, 2)) or self.sure_error > MOST_WRONG:
            return 0.0
        sure = _above(self.sure_error, max(LEAST_ERROR, EVEN * self.error), self.sure_samples)
        return sure * _above(self.top_error, LEVEL * self.sure_error, self.top_samples)


def _logit(share: float, samples: int) -> float:
    """ln of the odds of a share, half a sample added to both sides."""
    return math.log((share * samples + 0.5) / ((1 - share) * samples + 0.5))


def _above(share: float, limit: float, samples: int) -> float:
    """Probability that the share behind that of a sample is above a limit, by the normal distribution."""
    se = math.sqrt(max(share * (1 - share), 1 / (samples + 4)) / samples)
    return 0.5 * math.erfc(-(share - limit) / (se * math.sqrt(2)))


def count_votes(runs: Sequence[SampleScores]) -> LabelVotes | None:
    """Return what the votes say of the labels; None for fewer than 20. Each sample is to be voted on by one run."""
    known = [one for one in runs if one.predicted is not None and one.confidence is not None]
    if not known or sum(len(one.index) for one in known) < 20:
        return None
    wrong = np.concatenate([~one.correct for one in known])
    index = np.concatenate([one.index for one in known])
    # ranks within a run: the confidences of different models are not on one scale
    rank = np.concatenate([_ranks(one) for one in known])
    sure, top = rank >= 1 - SURE_SHARE, rank >= 1 - TOP_SHARE
    low, high = wilson_interval(float(wrong[sure].mean()), int(sure.sum()))
    order = np.argsort(-(rank * wrong), kind="stable")[: int(wrong.sum())][:100]
    classes = len(np.unique(np.concatenate([one.truth for one in known])))
    return LabelVotes(
        len(wrong),
        float(wrong.mean()),
        int(sure.sum()),
        float(wrong[sure].mean()),
        low,
        high,
        int(top.sum()),
        float(wrong[top].mean()),
        classes,
        _next_choice(known, rank, classes),
        tuple(int(index[row]) for row in order),
    )


def _next_choice(
    runs: Sequence[SampleScores], rank: np.ndarray[Any, np.dtype[np.float64]], classes: int
) -> float | None:
    """(r - b) / (e - b) over the errors of the surer votes, between 0 and 1.5; None where it cannot be told.

    r: mean share that the label has of what the vote leaves, p_label / (1 - p_vote); e: the same where labels follow the
    model, sum of p_k^2 / (1 - p_vote)^2 over the other classes k; b = 1 / (K - 1), where they are any of these.
    """
    if classes < 3:
        return None
    vote = np.concatenate([one.confidence for one in runs if one.confidence is not None])
    label = np.exp(-np.concatenate([one.loss for one in runs]))
    wrong = np.concatenate([~one.correct for one in runs])
    squares = 2 * label - np.concatenate([one.score for one in runs])  # sum of p_k^2, by the quadratic score
    chosen = wrong & (rank >= 1 - UPPER_SHARE) & (1 - vote >= LEAST_REST)
    if chosen.sum() < FEWEST_ERRORS:
        chosen = wrong & (1 - vote >= LEAST_REST)
    if chosen.sum() < FEWEST_ERRORS:
        return None
    rest, any_class = 1 - vote[chosen], 1 / (classes - 1)
    share = float(np.minimum(label[chosen] / rest, 1).mean())
    expected = float(np.clip((squares[chosen] - vote[chosen] ** 2) / rest**2, any_class, 1).mean())
    if expected - any_class < LEAST_PREFERENCE:
        return None  # the model has no next choice
    return float(np.clip((share - any_class) / (expected - any_class), 0, 1.5))


def _ranks(scores: SampleScores) -> np.ndarray[Any, np.dtype[np.float64]]:
    assert scores.confidence is not None
    order = np.argsort(scores.confidence, kind="stable")
    ranks = np.empty(len(order))
    ranks[order] = (np.arange(len(order)) + 1) / len(order)
    return ranks


def may_be_noise(scores: SampleScores | None, priors: Mapping[Code, float]) -> bool:
    """Whether the validation samples leave open that labels are wrong, so that more votes are worth their runs."""
    votes = None if scores is None else count_votes([scores])
    if votes is None:
        return priors.get("label_noise", 0.0) >= 0.2
    if votes.sure_high < LEAST_ERROR or votes.error < LEAST_ERROR:
        return False
    return votes.sure_high >= EVEN * votes.error or (votes.classes > 2 and votes.probability >= POSSIBLE)
