"""The maps from scores to probabilities of `trainkit.diagnose.calibration`: fitted, written, and shown as a plot."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from benchmarks.diagnosis.examination import Examination
from benchmarks.diagnosis.generator import FINAL_FROM
from benchmarks.diagnosis.judge import Opinion, Result
from trainkit.diagnose import calibration_table
from trainkit.diagnose.calibration import PlattScaling, logit
from trainkit.diagnose.diagnosis import diagnose, examine
from trainkit.diagnose.estimates import wilson_interval
from trainkit.diagnose.verdicts import Code

SEEDS = (*range(211, 300), *range(1016, FINAL_FROM))
"""Cases that few rules were made from: those of the first final figures, once they had been looked at, among them."""
BINS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
PRIOR_MEAN, PRIOR_DEVIATION = (0.0, 1.0, 3.0), (2.0, 1.0, 1.0)
"""Of intercept, slope and rival: without data and rivals the score is the probability. On the development seeds a verdict
with a rival of 0.5 was right in about half of the cases, whatever its score."""
FOLDS = 10


@dataclass(frozen=True, slots=True)
class Scored:
    """A main verdict before its calibration, and whether it is right."""

    code: Code
    score: float
    rival: float
    right: bool


def is_right(code: Code, truth: str, effective: Sequence[Code], planted: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a main verdict is right: `healthy` unless a fault has an effect; else what was planted.

    Of a fault without an effect the setting is there, so that its name is right.
    """
    if code == "healthy":
        return truth != "faulty"
    return code in effective if truth == "faulty" else code in {one["code"] for one in planted}


def scored(cases: Iterable[Examination]) -> Iterator[Scored]:
    """Yield the strongest evidence of each case, or `healthy`; of cases whose truth is settled."""
    for case in cases:
        if case.truth == "unsettled":
            continue
        found, verdict = examine(case.run), diagnose(case.run).verdicts[0]
        lead = found.evidence[0] if found.evidence else verdict
        if lead.code == "inconclusive":
            continue
        score = lead.evidence["score"] if lead.code == "healthy" else lead.confidence
        right = is_right(lead.code, case.truth, case.effective, case.planted)
        yield Scored(lead.code, score, found.rival(lead.code), right)


def scored_investigations(
    cases: Iterable[Examination], investigations: Iterable[Mapping[str, Any]]
) -> Iterator[Scored]:
    """Yield the main verdict of each investigation before its calibration; of cases whose truth is settled."""
    for case, findings in zip(cases, investigations, strict=True):
        lead = findings["verdicts"][0]
        if case.truth != "unsettled" and lead["code"] != "inconclusive":
            right = is_right(lead["code"], case.truth, case.effective, case.planted)
            yield Scored(lead["code"], lead["evidence"].get("score", lead["confidence"]), 0.0, right)


def fitted(rows: Sequence[Scored], *, with_rival: bool) -> PlattScaling:
    """Return the most probable map, by Platt's (1999) likelihood and a normal prior of the parameters.

    Platt's targets (n+ + 1) / (n+ + 2) and 1 / (n- + 2) in the place of 1 and 0 keep few rows from certainty.
    """
    right = np.array([one.right for one in rows], bool)
    columns = [np.ones(len(rows)), [logit(one.score) for one in rows], [-one.rival for one in rows]]
    x = np.column_stack(columns if with_rival else columns[:2])
    y = np.where(right, (right.sum() + 1) / (right.sum() + 2), 1 / ((~right).sum() + 2))
    mean, deviation = (np.array(one[: x.shape[1]]) for one in (PRIOR_MEAN, PRIOR_DEVIATION))

    def loss(parameters: NDArray[np.float64]) -> float:
        z = x @ parameters
        return float((np.logaddexp(0, z) - y * z).sum() + (((parameters - mean) / deviation) ** 2).sum() / 2)

    # neither a surer rule nor a less suspected rival makes a verdict less likely
    bounds = [(None, None), (0.0, None), (0.0, None)][: x.shape[1]]
    return PlattScaling(*(round(float(one), 4) for one in minimize(loss, mean, bounds=bounds).x))


def held_out(rows: Sequence[Scored], *, with_rival: bool) -> list[tuple[float, bool]]:
    """Return (probability, whether right) of each row, by a map that was fitted on the other folds."""
    found = []
    for fold in range(FOLDS):
        others = [one for number, one in enumerate(rows) if number % FOLDS != fold]
        calibration = fitted(others, with_rival=with_rival)
        found += [(calibration.probability(one.score, one.rival), one.right) for one in rows[fold::FOLDS]]
    return found


def calibrate(
    cases: Sequence[Examination], investigations: Sequence[Mapping[str, Any]] | None, facts: Mapping[str, Any]
) -> tuple[str, list[tuple[float, bool]]]:
    """Fit the maps of the records' verdicts, or, given the findings of each case, that of the investigations' alone.

    They are written into `trainkit/diagnose/calibration_table.py`, in the place of those of the same name. Returns a
    report, and (probability, whether right) of each verdict by the maps of the other folds.
    """
    if investigations is None:
        rows = list(scored(cases))
        verdicts, healthy = ([one for one in rows if (one.code == "healthy") is quiet] for quiet in (False, True))
        groups = {"VERDICT": (verdicts, True), "HEALTHY": (healthy, False)}
    else:
        groups = {"INVESTIGATED": (list(scored_investigations(cases, investigations)), False)}
    text: list[str] = []
    points: list[tuple[float, bool]] = []
    for name, (group, with_rival) in groups.items():
        one, right = fitted(group, with_rival=with_rival), sum(row.right for row in group)
        words = "; ".join(f"{name} {value}" for name, value in facts.items())
        _write(name, one, f"{right} of {len(group)} were right;\n{words}.")
        text.append(f"{name}: {one}, {right} of {len(group)} right; by maps of the other folds:")
        points += (held := held_out(group, with_rival=with_rival))
        text += [f"  {row}" for row in reliability_rows(held)]
    return "\n".join(text), points


def _write(name: str, one: PlattScaling, words: str) -> None:
    """Put a map into the table, in the place of the one of its name."""
    file = Path(calibration_table.__file__)
    entry = f'{name} = ({one.intercept}, {one.slope}, {one.rival})\n"""{words}"""\n'
    old = rf'^{name} = [^\n]*\n""".*?"""\n'
    file.write_text(re.sub(old, entry, file.read_text(), flags=re.MULTILINE | re.DOTALL))


def main_verdicts(results: Sequence[Result], mode: str) -> list[tuple[float, bool]]:
    """Return (confidence, whether right) of each main verdict that is not inconclusive."""
    found = []
    for result in results:
        opinion: Opinion = result.opinions[mode]
        if opinion.named[0] != "inconclusive" and result.truth != "unsettled":
            right = is_right(opinion.named[0], result.truth, result.effective, result.planted)
            found.append((opinion.confidences[0], right))
    return found


def binned(points: Sequence[tuple[float, bool]]) -> Iterator[tuple[float, int, int]]:
    """Yield (mean probability, right, all) of each bin that is not empty."""
    for low, high in itertools.pairwise(BINS):
        inside = [(p, right) for p, right in points if low <= p < high or p == high == 1]
        if inside:
            yield sum(p for p, _ in inside) / len(inside), sum(right for _, right in inside), len(inside)


def reliability_rows(points: Sequence[tuple[float, bool]]) -> list[str]:
    """Return one line for each bin: mean confidence, and the share that was right."""
    return [f"confidence {mean:.2f}: {right} of {count} right" for mean, right, count in binned(points)]


def plot_reliability(points: Sequence[tuple[float, bool]], title: str, file: Path) -> None:
    """Draw the share that was right against the confidence, with Wilson's 95 % intervals and the number of each bin."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5.2, 4.4), dpi=120, layout="constrained")
    axes.plot([0.35, 1], [0.35, 1], color="0.6", linewidth=1, label="confidence = share that is right")
    for mean, right, count in binned(points):
        low, high = wilson_interval(right / count, count)
        share = right / count
        axes.errorbar([mean], [share], [[share - low], [high - share]], fmt="o", color="C0", capsize=3)
        side, place = ("right", -6) if mean > 0.9 else ("left", 6)  # inside the frame
        axes.annotate(
            f"{right} of {count}", (mean, share), (place, -12), textcoords="offset points", fontsize=8, ha=side
        )
    axes.set(xlabel="confidence of the main verdict", ylabel="share that is right", xlim=(0.35, 1.02), ylim=(0, 1.02))
    axes.set_title(title, fontsize=9)
    axes.legend(loc="upper left", fontsize=8, frameon=False)
    figure.savefig(file)
    pyplot.close(figure)
