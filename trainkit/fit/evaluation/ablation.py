"""Ablation of a model of images and columns: its metrics when one of the two is another sample's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainkit.fit.encoding.prepare import Part
from trainkit.fit.evaluation.evaluate import Forward, outputs_of
from trainkit.fit.seeding import derive

PERMUTATIONS = 5


def ablation(
    forward: Forward,
    part: Part,
    preprocess: Callable[[Tensor], Tensor],
    measured: Callable[[Tensor, Part], dict[str, float]],
    seed: int,
) -> dict[str, Any] | None:
    """`{permutations, without_image, without_columns}` of a part; None for a single sample.

    `without_columns`: m = 1/R sum_r metric(y_i, f(image_i, columns_p(i))), and `without_image` the same with
    f(image_p(i), columns_i), over R permutations p that leave no sample in its place, drawn from `seed`. The replaced
    input keeps its distribution and loses all it says of the sample. Each pair of samples is equally likely, so that
    the mean estimates e_switch, the model reliance of Fisher, Rudin and Dominici (2019), JMLR 20(177), section 3.

    Args:
        forward: (images, columns) -> raw outputs (B, K).
        part: Images with their columns.
        preprocess: Of images, where they are pending.
        measured: (raw outputs, part) -> metrics.
        seed: `train.seed` of the spec.
    """
    if part.side_input is None or len(part) < 2:
        return None
    random = np.random.default_rng(derive(seed, "ablation"))
    sums: dict[str, list[dict[str, float]]] = {"without_image": [], "without_columns": []}
    for _ in range(PERMUTATIONS):
        other = torch.from_numpy(one_cycle(len(part), random))
        rows = other.to(part.x.device)
        # image i with the columns of sample p(i): beside y_i the columns are wrong, beside y_p(i) the image is
        pairs = replace(part, side_input=part.side_input[rows])
        z = outputs_of(forward, pairs, preprocess)
        sums["without_columns"].append(measured(z, pairs))
        of_columns = replace(pairs, targets=part.targets[rows], truth=part.truth[other.numpy()])
        sums["without_image"].append(measured(z, of_columns))
    means = {name: {key: float(np.mean([one[key] for one in runs])) for key in runs[0]} for name, runs in sums.items()}
    return {"permutations": PERMUTATIONS, **means}


def one_cycle(n: int, random: np.random.Generator) -> NDArray[np.int64]:
    """A random permutation of n >= 2 that is a single cycle: every sample gets another one, each equally likely."""
    order = random.permutation(n)
    permutation = np.empty(n, np.int64)
    permutation[order] = np.roll(order, -1)
    return permutation
