"""Which cause explains what the changes did to a run: first whether there is a fault, then a Bayesian table over causes.

Whether there is one. A sound run gains something too, by chance and by more effort: about `TriedChange.usual_gain`, g0.
With z the largest gain in units of hypot(g0, se / 2), after a standard error se is taken off it,

    odds(fault) = sum of the causes' priors / SOUND * (1 - exp(-(z / 1.5)^2)) / (CHANCE * exp(-z^2 / 2) + 1e-4)

Where the standard error of an unusual setting's gain is above ROUGH the factor is at least 1: the runs say nothing.

Which one it is. Causes that one helpful change of an unusual setting repairs are first weighed together (`likeliest`).

    P(cause | fault) ~ prior * size of its own gain * (product over the changes of P(what the change did | cause)) ^ TEMPER

Each change repaired most, a part or nothing of what is to be gained, with probabilities from its paired interval. How
likely that is under a cause comes from two numbers: `Intervention.repairs` for the changes that the cause names, and
`BY_THE_WAY` for all others, what such a change gains in runs with some other fault. Batch norm and more epochs help many
runs, so a gain by them says little; the usual initialisation helps hardly any run but those whose initialisation is
wrong. The numbers come from what the changes do, and were adjusted by eye on development cases. TEMPER below 1 counts the
changes as less than independent: they share data, seed and base.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from trainkit.diagnose.investigation_history import DATA_CAUSES, MATERIAL, OTHER_SPLIT, InvestigationHistory, Tested
from trainkit.diagnose.verdicts import Code

BY_THE_WAY = {
    "batch_norm": 0.35,
    "longer": 0.3,
    "adam": 0.3,
    "fewer_layers": 0.25,
    "clipping": 0.2,
    "rate_tenth": 0.2,
    "rate_tenfold": 0.2,
    "relu": 0.2,
    "leaky_relu": 0.15,
    "wider": 0.15,
    "hidden_layer": 0.15,
    "standardised_inputs": 0.15,
    "standard_rate": 0.1,
    "standard_init": 0.05,
}
"""Probability that a change repairs most of a run whose fault is another's."""
SPECIFIC = 0.4
"""Of that probability for a change that makes an unusual setting usual: it repairs next to nothing of another fault."""
USUALLY = 0.1
ALTERNATIVE = (0.35, 0.3, 0.35)
"""Of a cause's own changes one is enough: P(most, part, nothing) of those that are not its best (a dose too small)."""
TEMPER = 0.8
SUSPECTED = 0.25
"""Prior from which on a cause was suspected before the experiment."""
SOUND = 0.5
"""Weight of `none` before the experiments, beside the causes' of `InvestigationHistory.priors`."""
ROUGH = 0.07
"""Standard error of the gain of skill by an unusual setting made usual, from which on it says nothing."""
NEARLY_AS_LIKELY = 0.7
"""Share of the probability of the likeliest causes from which on one that was mended comes before it."""
CHANCE = 0.4
"""Probability that one of the changes gains something in a sound run."""
Key = Code | Literal["none"]


@dataclass(frozen=True, slots=True)
class Attribution:
    """Posterior over the causes that changes of training can settle, and `none`; the best change of the likeliest cause.

    `winner` is None where `none` is the likeliest, or no change of the likeliest cause helped beyond noise.
    """

    posterior: dict[Key, float]
    code: Key
    winner: Tested | None


def attribute(history: InvestigationHistory) -> Attribution:
    """Return what the changes that were tried say about the cause."""
    tested = [
        one
        for name, one in history.tested.items()
        if name not in OTHER_SPLIT and not set(one.change.causes) <= DATA_CAUSES
    ]
    causes = {code for one in tested for code in one.change.targeted if code not in DATA_CAUSES}
    if not causes:
        return Attribution({"none": 1.0}, "none", None)
    least = min(MATERIAL, *(one.change.material_gain for one in tested))
    largest = max([*(one.skill.gain - one.skill.se for one in tested), least])
    outcomes = {one.change.name: _outcome(one, largest) for one in tested}
    weights = {code: _weight(code, tested, outcomes, history.priors.get(code, 0.0)) for code in causes}
    top = max(weights.values())
    total = sum(math.exp(weight - top) for weight in weights.values())
    excess = max(_excess(one) for one in tested)
    odds = sum(history.priors.get(code, 0.0) for code in causes) / SOUND
    ratio = (_size(excess) + 1e-3) / (CHANCE * math.exp(-(excess**2) / 2) + 1e-4)
    # gains that are known so roughly leave it as open as it was
    rough = max((one.skill.se for one in tested if one.change.undoes), default=0.0) > ROUGH
    odds *= max(ratio, 1.0) if rough else ratio
    posterior: dict[Key, float] = {
        code: math.exp(weight - top) / total * odds / (1 + odds) for code, weight in weights.items()
    }
    posterior["none"] = 1 / (1 + odds)
    code = likeliest(posterior, tested)
    return Attribution(
        posterior, code, None if code == "none" else best_of(code, tested, history.priors.get(code, 0.0))
    )


def likeliest(posterior: Mapping[Key, float], tested: Sequence[Tested]) -> Key:
    """The likeliest cause of the likeliest group; causes that one change of an unusual setting repairs are a group.

    Whether it is the initialisation that is wrong comes before what it does: saturated units, or large gradients. Causes
    that such a change did mend come before others that are hardly likelier.
    """
    groups: list[frozenset[Key]] = [frozenset({key}) for key in posterior]
    groups += [frozenset(one.change.targeted) for one in tested if one.change.undoes and one.helped]
    weight = {keys: sum(posterior.get(key, 0.0) for key in keys) for keys in groups}
    most = max(weight.values())
    # where two are about as likely, it is the one whose unusual setting was mended
    mended = {
        keys: any(one.change.undoes and one.helped and keys <= one.change.targeted for one in tested) for keys in groups
    }
    near = [
        keys for keys in groups if weight[keys] >= NEARLY_AS_LIKELY * most and (mended[keys] or weight[keys] == most)
    ]
    group = max(near, key=lambda keys: (mended[keys], weight[keys], sorted(keys)))
    return max(group, key=lambda key: (posterior.get(key, 0.0), key))


def _weight(
    code: Code, tested: list[Tested], outcomes: Mapping[str, tuple[float, float, float]], prior: float
) -> float:
    """Log of prior times likelihood of what the changes did, where `code` is the cause."""
    aimed = [one for one in tested if code in one.change.targeted]
    best = max(aimed, key=lambda one: (one.skill.gain, one.change.name))
    # a fault costs more than what a sound run may gain by chance or effort
    weight = math.log(max(prior, 1e-3)) + math.log(max(1e-3, _size(max(0.0, best.skill.gain) / best.change.usual_gain)))
    for one in tested:
        if one in aimed and one is not best:
            chances = ALTERNATIVE
        else:
            by_the_way = BY_THE_WAY.get(one.change.name, USUALLY) * (SPECIFIC if one.change.undoes else 1.0)
            repairs = one.change.causes.get(code, by_the_way)
            chances = (0.8 * repairs, 0.04 + 0.16 * repairs, 0.96 * (1 - repairs))
        weight += TEMPER * math.log(sum(p * q for p, q in zip(outcomes[one.change.name], chances, strict=True)))
    return weight


def _excess(one: Tested) -> float:
    """The gain beyond a standard error, in usual gains; half of the error counts as usual, too: the largest of many."""
    return max(0.0, one.skill.gain - one.skill.se) / math.hypot(one.change.usual_gain, one.skill.se / 2)


def _size(excess: float) -> float:
    """Probability that a fault costs less than so many usual gains of a sound run."""
    return 1 - math.exp(-((excess / 1.5) ** 2))


def best_of(code: Code, tested: list[Tested], prior: float) -> Tested | None:
    """The change of a cause that helped most, by the lower end of its interval; None where none helped.

    A change for a cause that was suspected before the experiment is a planned comparison: its own interval decides, of an
    unusual setting made usual in one direction. For the others the p-value that is corrected for the number of changes
    does.
    """

    def may_win(one: Tested) -> bool:
        by_itself = one.probably_helped if one.change.undoes else one.helped_by_itself
        return one.helped or (prior >= SUSPECTED and by_itself)

    helped = [one for one in tested if code in one.change.causes and may_win(one)]
    aimed = [one for one in helped if code in one.change.targeted]
    return max(aimed or helped, key=lambda one: (one.skill.low, one.change.name), default=None)


def _outcome(one: Tested, largest: float) -> tuple[float, float, float]:
    """Probabilities that the change gained most, a part or nothing of the largest gain, by its interval."""
    spread = math.hypot(one.skill.se, 0.1 * largest, min(MATERIAL, one.change.material_gain) / 4)
    none = _normal((max(0.25 * largest, min(MATERIAL, one.change.material_gain)) - one.skill.gain) / spread)
    most = min(1 - none, _normal((one.skill.gain - 0.7 * largest) / spread))
    return most, max(0.0, 1 - none - most), none


def _normal(z: float) -> float:
    """P(Z <= z) of the standard normal distribution."""
    return 0.5 * math.erfc(-z / math.sqrt(2))
