"""The map from votes to the probability of wrong labels of `trainkit.diagnose.label_votes`: simulated, fitted, printed.

    python -m benchmarks.diagnosis.vote_map --jobs 2

Each draw is a dataset of the pool, some of its samples, noise in the inputs or none, and a share of wrong labels. Networks
of scikit-learn vote by three folds. The report is of datasets that were left out of the fit, one at a time.
"""

from __future__ import annotations

import argparse
import warnings
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np

from benchmarks.diagnosis.datasets import POOL, samples_of
from trainkit.diagnose.label_votes import LabelVotes, count_votes
from trainkit.diagnose.sample_scores import SampleScores

SHARES = (0.0, 0.0, 0.0, 0.05, 0.12, 0.25, 0.4)
FEW_WRONG = 0.08
"""Shares of wrong labels between 0 and this count neither as right nor as wrong."""
FOLDS = 3
Draw = tuple[str, float, LabelVotes]


def draw(number: int) -> Draw | None:
    """Return (dataset, share of wrong labels, votes) of a draw; None where the map is not asked."""
    from sklearn.neural_network import MLPClassifier

    random = np.random.default_rng([77, number])
    names = [name for name, entry in POOL.items() if entry.classes > 2 and entry.form in ("vector", "image")]
    name = names[random.integers(len(names))]
    x, y = samples_of(name)
    count = min(len(y), int(np.exp(random.uniform(np.log(250), np.log(2000)))))
    rows = random.permutation(len(y))[:count]
    values, labels = np.asarray(x, np.float64).reshape(len(y), -1)[rows], y[rows]
    values = (values - values.mean(0)) / np.where(values.std(0) > 0, values.std(0), 1)
    values = values + random.choice([0.0, 0.0, 0.5, 1.0]) * random.normal(size=values.shape)
    share, classes = float(random.choice(SHARES)), int(y.max()) + 1
    labels = np.where(random.random(count) < share, (labels + random.integers(1, classes, count)) % classes, labels)
    options: dict[str, Any] = {
        "hidden_layer_sizes": [(32,), (64,), (64, 32), (128, 64)][random.integers(4)],
        "max_iter": int(random.choice([20, 60, 150])),
        "alpha": float(random.choice([1e-4, 0.1, 1.0])),
        "early_stopping": bool(random.random() < 0.6),
        "n_iter_no_change": 10,
        "batch_size": 32,
        "learning_rate_init": 2e-3,
    }
    fold, runs = random.permutation(count) % FOLDS, []
    for number_of_fold in range(FOLDS):
        held = fold == number_of_fold
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # networks that have not converged are meant
            model = MLPClassifier(random_state=number_of_fold, **options).fit(values[~held], labels[~held])
        shares = np.zeros((int(held.sum()), classes))
        shares[:, model.classes_] = model.predict_proba(values[held])
        runs.append(SampleScores.of_classes(np.flatnonzero(held), labels[held], shares))
    votes = count_votes(runs)
    return None if votes is None or votes.next_choice is None else (name, share, votes)


def main(arguments: list[str] | None = None) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=2500)
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args(arguments)
    with ProcessPoolExecutor(options.jobs) as pool:
        found = [one for one in pool.map(_or_none, range(options.draws), chunksize=4) if one is not None]
    rows = [one for one in found if one[1] == 0 or one[1] >= FEW_WRONG]
    x, wrong = np.array([votes.features for _, _, votes in rows]), np.array([share > 0 for _, share, _ in rows])
    names = np.array([name for name, _, _ in rows])
    held_out = np.zeros(len(rows))
    for name in np.unique(names):
        others = names != name
        model = LogisticRegression(C=3, max_iter=5000).fit(x[others], wrong[others])
        held_out[~others] = model.predict_proba(x[~others])[:, 1]
    model = LogisticRegression(C=3, max_iter=5000).fit(x, wrong)
    print(f"{len(rows)} draws; intercept {model.intercept_[0]:.2f}, weights {np.round(model.coef_[0], 2).tolist()}")
    print(f"area under the ROC curve on datasets left out: {roc_auc_score(wrong, held_out):.3f}")
    limits = [votes.by_limits for _, _, votes in rows]
    print(f"by the limits alone: {roc_auc_score(wrong, limits):.3f}")
    for share in sorted({share for _, share, _ in rows}):
        of_share = held_out[[one[1] == share for one in rows]]
        print(
            f"{share:.0%} wrong: probability above 0.5 in {np.mean(of_share > 0.5):.0%}, 0.8 in {np.mean(of_share > 0.8):.0%}"
        )


def _or_none(number: int) -> Draw | None:
    try:
        return draw(number)
    except ValueError:  # a class of one sample cannot be held out to stop early
        return None


if __name__ == "__main__":
    main()
