"""Reference models on plain numbers: each fits x (n, d), y and returns a function from x to answers.

Answers are scores (m, K), the largest of which is the predicted class, or numbers (m, k) in the units of y. All but
boosting are computed here, in double precision by torch, so that they take milliseconds and are the same in every run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from threading import Thread
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from trainkit.fit.references.samples import Lags

Answer = Callable[[Tensor], Tensor]
T = TypeVar("T")
PENALTIES = (1e-6, 1e-4, 1e-3, 1e-2, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Of ridge regression, for each sample: alpha = penalty * n, on standardised inputs."""
CENTRES, CENTRES_OF_MANY = 600, 300
"""Training samples that the kernel is expanded in; the second above `MANY` samples."""
MANY = 3000
NEWTON_STEPS = 200
TREES = 600
"""Of boosting in all, divided among the classes or targets."""
MOST_ROUNDS, LEAST_ROUNDS = 150, 20
MOST_BOOSTED_TARGETS = 4
ASK_SECONDS = 0.1


class OutOfTimeError(Exception):
    """The time for the references is up, or a command says that the process is to do something else."""


@dataclass
class Clock:
    """The time that references may take. `interrupted` is asked often and answers at once."""

    deadline: float
    interrupted: Callable[[], bool] = lambda: False

    @property
    def left(self) -> float:
        """Seconds."""
        return self.deadline - time.monotonic()

    def check(self) -> None:
        """Raise OutOfTimeError when the time is up."""
        if self.left <= 0 or self.interrupted():
            raise OutOfTimeError

    def run(self, work: Callable[[], T]) -> T:
        """Do what cannot be interrupted in a thread, which is left behind when the time is up. Raises OutOfTimeError."""
        done: Future[T] = Future()

        def call() -> None:
            try:
                done.set_result(work())
            except BaseException as error:
                done.set_exception(error)

        Thread(target=call, daemon=True).start()
        while not wait([done], timeout=ASK_SECONDS).done:
            self.check()
        return done.result()


@dataclass(frozen=True, slots=True)
class Standardised:
    """Mean 0 and deviation 1 on the training part; a constant feature becomes 0."""

    mean: Tensor
    scale: Tensor

    @classmethod
    def fit(cls, x: Tensor) -> Standardised:
        mean, std = x.mean(0), x.std(0, correction=0)
        usable = std > 1e-12 * torch.maximum(mean.abs(), torch.ones_like(mean))
        return cls(mean, torch.where(usable, 1 / torch.where(usable, std, 1.0), torch.zeros_like(std)))

    def __call__(self, x: Tensor) -> Tensor:
        """As far as 10 deviations: a validation sample far outside must not decide a linear answer alone."""
        return ((x - self.mean) * self.scale).clamp(-10, 10)


def targets_of(y: NDArray[Any], classes: int | None) -> Tensor:
    """(n, K) one-hot, or the numbers (n, k)."""
    tensor = torch.from_numpy(np.ascontiguousarray(y))
    return tensor.double() if classes is None else one_hot(tensor.long(), classes).double()


def fit_constant(x: Tensor, y: NDArray[Any], classes: int | None, clock: Clock) -> Answer:
    """The commonest class, or the mean."""
    mean = targets_of(y, classes).mean(0)
    return lambda held: mean.expand(len(held), -1)


def fit_ridge(x: Tensor, y: NDArray[Any], classes: int | None, clock: Clock) -> Answer:
    """Least squares with an L2 penalty on standardised inputs, chosen by leave-one-out; classes as one-hot targets."""
    scale = Standardised.fit(x)
    answer = _ridge(scale(x), targets_of(y, classes), clock)
    return lambda held: answer(scale(held))


def _ridge(x: Tensor, y: Tensor, clock: Clock) -> Answer:
    """Leave-one-out errors are e_i / (1 - h_i) with h the diagonal of the hat matrix (Allen 1974)."""
    n, (centre, mean) = len(x), (x.mean(0), y.mean(0))
    x, y = x - centre, y - mean
    clock.check()
    squares, directions = torch.linalg.eigh(x.T @ x)
    kept = squares > 1e-10 * squares.max().clamp_min(1e-300)
    squares, directions = squares[kept], directions[:, kept]
    u = x @ directions / squares.sqrt()
    projected, weights_y = u.T @ y, y.std(0, correction=0).clamp_min(1e-300)
    least, coefficients = np.inf, torch.zeros(x.shape[1], y.shape[1], dtype=x.dtype)
    for penalty in PENALTIES:
        clock.check()
        shrink = squares / (squares + penalty * n)
        leverage = 1 / n + u**2 @ shrink
        residual = (y - u @ (shrink[:, None] * projected)) / (1 - leverage).clamp_min(1e-8)[:, None]
        error = float(((residual / weights_y) ** 2).mean())
        if error < least:
            least = error
            coefficients = directions @ ((shrink / squares.sqrt())[:, None] * projected)
    return lambda held: mean + (held - centre) @ coefficients


def logistic(penalty: float) -> Callable[[Tensor, NDArray[Any], int | None, Clock], Answer]:
    """Multinomial logistic regression on standardised inputs with an L2 `penalty`.

    scikit-learn's C is 1 / penalty, and 2 / penalty of two classes, for which it fits one vector of weights instead of two.
    """

    def fit(x: Tensor, y: NDArray[Any], classes: int | None, clock: Clock) -> Answer:
        assert classes is not None
        scale = Standardised.fit(x)
        inputs, labels = scale(x), torch.from_numpy(np.asarray(y, np.int64))
        weights = torch.zeros(x.shape[1], classes, dtype=torch.float64, requires_grad=True)
        bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS(
            [weights, bias], max_iter=NEWTON_STEPS, history_size=20, tolerance_grad=1e-6, line_search_fn="strong_wolfe"
        )

        def objective() -> Tensor:
            clock.check()
            optimizer.zero_grad()
            loss = cross_entropy(inputs @ weights + bias, labels, reduction="sum") + penalty / 2 * (weights**2).sum()
            loss = loss / len(inputs)
            loss.backward()
            return loss

        with torch.enable_grad():
            optimizer.step(objective)
        w, b = weights.detach(), bias.detach()
        return lambda held: scale(held) @ w + b

    return fit


def kernel(width: float, seed: int) -> Callable[[Tensor, NDArray[Any], int | None, Clock], Answer]:
    """Ridge regression with the kernel exp(-|a - b|^2 / (width * d)) on d standardised inputs.

    Of more samples than `CENTRES` it is expanded in a random choice (Nystroem's approximation; Williams and Seeger 2001).
    """

    def fit(x: Tensor, y: NDArray[Any], classes: int | None, clock: Clock) -> Answer:
        scale = Standardised.fit(x)
        inputs = scale(x)
        gamma = 1 / (width * max(int((scale.scale > 0).sum()), 1))
        random = np.random.default_rng(seed)
        chosen = np.sort(
            random.choice(len(x), min(CENTRES if len(x) <= MANY else CENTRES_OF_MANY, len(x)), replace=False)
        )
        centres = inputs[torch.from_numpy(chosen)]

        def similar(a: Tensor) -> Tensor:
            return torch.exp(-gamma * torch.cdist(a, centres, compute_mode="use_mm_for_euclid_dist") ** 2)

        clock.check()
        values, directions = torch.linalg.eigh(similar(centres))
        kept = values > 1e-8 * values.max()
        whiten = directions[:, kept] / values[kept].sqrt()
        clock.check()
        answer = _ridge(similar(inputs) @ whiten, targets_of(y, classes), clock)
        return lambda held: answer(similar(scale(held)) @ whiten)

    return fit


def boosting(seed: int, threads: int) -> Callable[[Tensor, NDArray[Any], int | None, Clock], Answer]:
    """scikit-learn's histogram boosting, stopped early by a tenth of the training part. Raises ImportError without it."""

    def fit(x: Tensor, y: NDArray[Any], classes: int | None, clock: Clock) -> Answer:
        clock.check()
        return clock.run(lambda: _boost(x.numpy(), y, classes, clock, seed, threads))

    return fit


def _boost(
    x: NDArray[np.float64], y: NDArray[Any], classes: int | None, clock: Clock, seed: int, threads: int
) -> Answer:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from threadpoolctl import threadpool_limits

    present, counts = np.unique(y, return_counts=True) if classes is not None else (None, np.array([2]))
    trees = 1 if classes is None or len(counts) <= 2 else len(counts)
    rounds = max(LEAST_ROUNDS, min(MOST_ROUNDS, TREES // (trees if classes is not None else y.shape[1])))
    options: dict[str, Any] = {
        "max_iter": rounds,
        "learning_rate": 0.1 if rounds >= 100 else 0.2,
        "early_stopping": len(x) >= 100 and int(counts.min()) > 1,
        "random_state": seed % 2**32,
    }
    with threadpool_limits(threads):  # of this thread
        if classes is None:
            models = []
            for column in y.T:
                clock.check()
                models.append(HistGradientBoostingRegressor(**options).fit(x, column))
            return lambda held: torch.from_numpy(np.column_stack([one.predict(held.numpy()) for one in models]))
        if present is None or len(present) < 2:
            return fit_constant(torch.from_numpy(x), y, classes, clock)
        model = HistGradientBoostingClassifier(**options).fit(x, y)

    def answer(held: Tensor) -> Tensor:
        scores = np.zeros((len(held), classes))
        scores[:, present] = model.predict_proba(held.numpy())
        return torch.from_numpy(scores)

    return answer


def last_value(lags: Lags) -> Callable[[Tensor, NDArray[Any], int | None, Clock], Answer]:
    """The forecast that nothing changes: the last step's values."""
    return lambda x, y, classes, clock: lambda held: _step(held, lags, lags.steps - 1)


def seasonal_naive(lags: Lags) -> Callable[[Tensor, NDArray[Any], int | None, Clock], Answer]:
    """The value of a season ago; the season, of 2 steps up to the window, is the one with the least training error."""

    def place(period: int) -> int:
        seasons = -(-lags.horizon // period)
        return lags.steps - 1 + lags.horizon - seasons * period

    def fit(x: Tensor, y: NDArray[Any], classes: int | None, clock: Clock) -> Answer:
        truth = targets_of(y, None)
        scale = truth.var(0, correction=0).clamp_min(1e-300)
        places = sorted({place(period) for period in range(2, lags.steps + lags.horizon)} & set(range(lags.steps)))
        if not places:
            return fit_constant(x, y, classes, clock)
        errors = [float((((_step(x, lags, at) - truth) ** 2).mean(0) / scale).mean()) for at in places]
        best = places[int(np.argmin(errors))]
        return lambda held: _step(held, lags, best)

    return fit


def _step(x: Tensor, lags: Lags, step: int) -> Tensor:
    return x.reshape(len(x), lags.steps, lags.features)[:, step, -lags.targets :]
