"""What to try next for each verdict: merge patches on the spec, ranked; none that is no valid spec of the dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from pydantic import ValidationError

from trainkit.diagnose.leaks import giveaway_columns
from trainkit.diagnose.rates import LITTLE_LEARNT, relative_steps
from trainkit.diagnose.record import Record
from trainkit.diagnose.verdicts import Code, Verdict
from trainkit.spec import JobSpec, SpecError, resolve
from trainkit.spec.baselines import with_z_score
from trainkit.spec.patch import merge_patch, replacing
from trainkit.spec.probes import Probe, why_not

MOST_A_VERDICT, MOST = 3, 6
LIVELY_STEP = 0.005
"""Of the weights' norm: at the upper end of the steps of networks that train well."""
DEEP = 8
"""Hidden layers from which on a plain network is hard to train whatever the optimizer (He et al. 2016)."""
FORGETTING, FORGETTING_NUMBERS = 1e-3, 1e-2
"""Rate times weight decay: weights that no gradient holds are forgotten in a thousand steps, of numbers in a hundred."""
Patch = dict[str, Any]


@dataclass(frozen=True, slots=True)
class NextSpec:
    """A change of the spec, the whole spec with it, why, and what should come of it."""

    patch: Patch
    spec: dict[str, Any]
    why: str
    expected: dict[str, str]
    code: Code

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {"patch": self.patch, "spec": self.spec, "why": self.why, "expected": self.expected, "code": self.code}


@dataclass(frozen=True, slots=True)
class Offer:
    """A patch before it is checked. `expected` is (metric, direction, size, source)."""

    patch: Patch
    why: str
    expected: tuple[str, str, str, str]


def next_specs(record: Record, verdicts: Sequence[Verdict]) -> list[NextSpec]:
    """Of the verdicts in their order the best remedies, each once; what only follows from a cause waits for its cure."""
    document = dict(record.document if record.document is not None else record.spec.model_dump(mode="json"))
    made: list[NextSpec] = []
    for verdict in verdicts:
        if verdict.evidence.get("explained_by") or verdict.code not in REMEDIES:
            continue
        offered = 0
        for offer in REMEDIES[verdict.code](record):
            patch = _whole_split(document, offer.patch, record)
            spec = _checked(document, patch, record)
            if spec is None or offered == MOST_A_VERDICT or any(one.patch == patch for one in made):
                continue
            expected = dict(zip(("metric", "direction", "size", "source"), offer.expected, strict=True))
            made.append(NextSpec(patch, spec, offer.why, expected, verdict.code))
            offered += 1
    return made[:MOST]


def _checked(document: Mapping[str, Any], patch: Patch, record: Record) -> dict[str, Any] | None:
    """The patched spec; None where it is no valid one, does not fit the dataset, or changes nothing."""
    spec = merge_patch(document, patch)
    try:
        changed = JobSpec.model_validate(spec)
        if changed == JobSpec.model_validate(document):
            return None
        resolve(changed, record.facts)
    except (ValidationError, SpecError):
        return None
    return dict(spec)


def _whole_split(document: Mapping[str, Any], patch: Patch, record: Record) -> Patch:
    """Ratios that were written as a text, "8:1:1", cannot be merged into: the patch says the whole split then."""
    if "split" not in patch or not isinstance(document.get("split"), str):
        return patch
    return {**patch, "split": {**record.spec.split.model_dump(exclude_none=True), **patch["split"]}}


def rate_patch(record: Record, factor: float) -> Patch:
    """The same optimizer at `factor` times its rate."""
    optimizer = record.spec.optimizer
    return {"optimizer": {"kind": optimizer.kind, "lr": _round(min(1e3, optimizer.lr * factor))}}


def _usual_rate(record: Record) -> float:
    return float(type(record.spec.optimizer)().lr)


def model_patch(record: Record, **fields: Any) -> Patch:
    """The same model with these fields."""
    return {"model": {"kind": record.spec.model.kind, **fields}}


def _init(record: Record, kind: str) -> Patch:
    old = getattr(record.spec.model, "init", None)
    return model_patch(record, init=replacing(old.model_dump() if old is not None else {}, {"kind": kind}))


def _usual_init(record: Record) -> str:
    relu_like = getattr(record.spec.model, "activation", "") in ("relu", "leaky_relu", "elu", "gelu", "silu", "mish")
    return "he_normal" if relu_like else "xavier_uniform"


def scaled_patch(record: Record) -> Patch:
    """z_score behind the steps that must come first, and before those that look at directions."""
    return {"preprocess": with_z_score(record.spec.preprocess)}


def _longer(record: Record, factor: int) -> Patch:
    phases = record.spec.start_from.phases if record.spec.start_from else ()
    if phases:
        told = [phase.model_dump(mode="json", exclude_none=True) for phase in phases]
        told[-1]["epochs"] *= factor
        return {"start_from": {"phases": told}}
    return {"train": {"epochs": min(1_000_000, record.spec.train.epochs * factor)}}


def wider_patch(record: Record) -> Patch | None:
    """Twice the width; None where the model has none."""
    model = record.spec.model
    if model.kind == "mlp":
        return model_patch(record, hidden=[min(65536, 2 * width) for width in model.hidden] or [128])
    if model.kind in ("cnn", "residual_cnn"):
        return model_patch(record, channels=[min(65536, 2 * width) for width in model.channels])
    if model.kind in ("lstm", "gru"):
        return model_patch(record, hidden=min(65536, 2 * model.hidden))
    return None


def _shallower(record: Record, told: tuple[str, str, str, str]) -> Iterator[Offer]:
    hidden = _hidden(record)
    if len(hidden) >= DEEP:
        why = "So many plain layers train worse than few: a smaller network that learns more shows it."
        yield Offer(model_patch(record, hidden=list(hidden[:2])), why, told)


def _hidden(record: Record) -> tuple[int, ...]:
    """Widths of a plain network's hidden layers; empty for other models."""
    return record.spec.model.hidden if record.spec.model.kind == "mlp" else ()


def narrower_patch(record: Record) -> Patch | None:
    """Half the width; None where the model has none."""
    model = record.spec.model
    if model.kind == "mlp" and model.hidden:
        return model_patch(record, hidden=[max(4, width // 2) for width in model.hidden])
    if model.kind in ("cnn", "residual_cnn"):
        return model_patch(record, channels=[max(4, width // 2) for width in model.channels])
    if model.kind in ("lstm", "gru"):
        return model_patch(record, hidden=max(4, model.hidden // 2))
    return None


def _early_stop(record: Record) -> Patch:
    kept = [rule.model_dump(mode="json") for rule in record.spec.early_stop if rule.kind != "patience"]
    return {"early_stop": [*kept, {"kind": "patience", "monitor": "val_loss", "patience": 5}]}


def _restrained(record: Record) -> Patch:
    """Units dropped and weights that fade without a gradient. Sums of numbers must hold: few of those are dropped."""
    made, model = record.spec.regularize, record.spec.model
    share, forgetting = (0.5, FORGETTING) if record.classification else (0.1, FORGETTING_NUMBERS)
    decay = max(3 * made.weight_decay, forgetting / record.spec.optimizer.lr)
    patch: Patch = {"regularize": {"weight_decay": _round(decay), "l2": 0}}
    if hasattr(model, "dropout") and model.kind != "linear" and (model.dropout or 0) < share:
        patch |= model_patch(record, dropout=share)
    return patch


def _overfitting(record: Record) -> Iterator[Offer]:
    model = record.spec.model
    form = record.resolved.sample.form if record.resolved else ""
    if form == "image" and not record.spec.augment:
        moves = [{"kind": "translate", "fraction": 0.1}, {"kind": "rotate", "degrees": 10}]
        told = (
            "val_loss",
            "down",
            "more than from penalties where the moves leave the class alone",
            "Simard et al. 2003",
        )
        yield Offer({"augment": moves}, "Moved pictures are new samples of the same classes.", told)
    yield Offer(
        _restrained(record),
        "Dropped units cannot learn samples by heart together, and weights fade that no gradient holds.",
        ("val_loss", "down", "some of the gap to training", "Srivastava et al. 2014; Loshchilov and Hutter 2019"),
    )
    if hasattr(model, "dropout") and model.kind != "linear" and (model.dropout or 0) < 0.2:
        yield Offer(
            model_patch(record, dropout=0.2),
            "Dropped units cannot learn samples by heart together.",
            ("val_loss", "down", "a little", "Srivastava et al. 2014"),
        )
    if (smaller := narrower_patch(record)) is not None:
        yield Offer(
            smaller,
            "Half the width learns less by heart.",
            ("val_loss", "down", "a little", "rule of thumb"),
        )
    yield Offer(
        _early_stop(record),
        "Later epochs only widen the gap.",
        ("seconds", "down", "the epochs behind the best one; the model stays the same", "this record"),
    )


def _underfitting(record: Record) -> Iterator[Offer]:
    made = record.spec.regularize
    if made.l2 or made.l1 or made.weight_decay or getattr(record.spec.model, "dropout", 0):
        patch: Patch = {"regularize": {"l1": 0, "l2": 0, "weight_decay": 0}}
        if getattr(record.spec.model, "dropout", 0):
            patch |= model_patch(record, dropout=0)
        told = ("train_loss", "down", "clearly, if the penalties held it back", "this record")
        yield Offer(patch, "Penalties hold back a model that does not over-fit.", told)
    told = (
        "train_loss",
        "down",
        "below this run's, or the noise of the data is reached",
        "decision tree of bias and variance",
    )
    if record.spec.model.kind in ("linear", "linear_svm"):
        old = record.spec.model.model_dump(mode="json")
        patch = {"model": replacing(old, {"kind": "mlp", "hidden": [128, 64]})}
        if record.spec.model.kind == "linear_svm" and record.spec.loss is not None and record.spec.loss.kind == "hinge":
            patch["loss"] = replacing(record.spec.loss.model_dump(), {"kind": "cross_entropy"})
        yield Offer(patch, "A linear model cannot bend; hidden layers can.", told)
    if (wider := wider_patch(record)) is not None:
        yield Offer(wider, "Twice the width can fit more.", told)
        yield Offer({**wider, **_longer(record, 2)}, "Twice the width, and twice the time to use it.", told)
    yield from _probes(record)


def _optimization(record: Record) -> Iterator[Offer]:
    told = ("train_loss", "down", "below a constant's loss within some epochs", "this record's baseline")
    plain = getattr(record.spec.model, "norm", None) == "none"
    yield from _shallower(record, told)
    if record.spec.optimizer.kind != "adam":
        old = record.spec.optimizer.model_dump(mode="json")
        yield Offer(
            {"optimizer": replacing(old, {"kind": "adam", "lr": 1e-3})},
            "Adam scales each weight's step by its own gradient's size.",
            told,
        )
    if plain:
        yield Offer(model_patch(record, norm="batch"), "Normalised layers keep signal and gradient in range.", told)
    for factor in (0.1, 10.0):
        yield Offer(rate_patch(record, factor), f"The rate times {factor:g}: the most common cause.", told)
    yield from _probes(record)


def _probes(record: Record) -> Iterator[Offer]:
    """The same run with what tells a model that cannot from an optimisation that fails."""
    wanted = [probe for probe in get_args(Probe) if why_not(record.spec, probe) is None]
    if "small_model" not in wanted:
        return
    told = ("probe_small_model_loss", "down", "below this run's, if its optimisation fails", "techniques, 11.1")
    yield Offer({"train": {"probes": wanted}}, "Tells a model too small from an optimisation that fails.", told)


def _too_high(record: Record) -> Iterator[Offer]:
    usual, learnt, steps = _usual_rate(record), record.learnt, relative_steps(record)
    told = ("train_loss", "down", "steadily from the first epoch on", "Bengio 2012: below the largest rate that works")
    if learnt is not None and learnt >= LITTLE_LEARNT and steps is not None:
        # a network that learns all the same would wait long at the usual rate
        factor = LIVELY_STEP / float(np.median(steps.value))
        if factor < 1:
            yield Offer(rate_patch(record, factor), "Steps of half a percent of the weights' norm.", told)
    if record.spec.optimizer.lr > 3 * usual:
        patch = {"optimizer": {"kind": record.spec.optimizer.kind, "lr": usual}}
        yield Offer(patch, f"The usual rate of {record.spec.optimizer.kind}.", told)
    yield Offer(rate_patch(record, 0.1), "A tenth of the rate.", told)
    slow = {"kind": record.spec.schedule.kind, "warmup_epochs": 1}
    yield Offer({**rate_patch(record, 0.3), "schedule": slow}, "A third of the rate, reached slowly.", told)


def _too_low(record: Record) -> Iterator[Offer]:
    usual, rates = _usual_rate(record), record.get("train_lr").value
    told = ("train_loss", "down", "in an epoch by more than in this whole run", "relative step near 1e-3: CS231n")
    if len(rates) and float(np.median(rates)) < record.spec.optimizer.lr / 3:
        old = record.spec.schedule.model_dump(mode="json")
        yield Offer({"schedule": replacing(old, {"kind": "constant"})}, "The schedule keeps the rate small.", told)
    if record.spec.optimizer.lr < usual / 3:
        patch = {"optimizer": {"kind": record.spec.optimizer.kind, "lr": usual}}
        yield Offer(patch, f"The usual rate of {record.spec.optimizer.kind}.", told)
    for factor in (10.0, 100.0):
        yield Offer(rate_patch(record, factor), f"{factor:g} times the rate.", told)


def _vanishing(record: Record) -> Iterator[Offer]:
    told = ("layers_grad_norm", "up", "first and last layer within a factor of 100", "He et al. 2015")
    model = record.spec.model
    if getattr(model, "activation", "relu") in ("sigmoid", "tanh"):
        fields: dict[str, Any] = {"activation": "relu"}
        yield Offer(
            model_patch(record, **fields, **_init_for(record, "he_normal")),
            "relu passes the gradient on undiminished.",
            told,
        )
    else:
        yield from _shallower(record, told)
    if getattr(model, "norm", None) == "none":
        yield Offer(model_patch(record, norm="batch"), "Normalised layers keep the gradient's scale.", told)
    if hasattr(model, "init"):
        yield Offer(
            _init(record, _usual_init(record)), "Weights whose scale keeps the gradient's through the layers.", told
        )
    if model.kind == "mlp" and len(model.hidden) > 2:
        yield Offer(model_patch(record, hidden=list(model.hidden[:2])), "Fewer layers to get through.", told)


def _init_for(record: Record, kind: str) -> dict[str, Any]:
    found: dict[str, Any] = _init(record, kind)["model"]
    return {"init": found["init"]} if getattr(record.spec.model, "init", None) is not None else {}


def _exploding(record: Record) -> Iterator[Offer]:
    told = ("grad_norm", "down", "to about 1, with a finite loss", "Pascanu, Mikolov and Bengio 2013")
    if getattr(record.spec.model, "init", None) is not None:
        yield Offer(
            _init(record, _usual_init(record)), "Weights whose scale keeps the signal's through the layers.", told
        )
    if record.spec.train.clip_norm is None:
        yield Offer({"train": {"clip_norm": 1.0}}, "No step follows a gradient longer than 1.", told)
    if getattr(record.spec.model, "norm", None) == "none":
        yield Offer(model_patch(record, norm="batch"), "Normalised layers keep the signal's scale.", told)
    yield Offer({**rate_patch(record, 0.1), "train": {"clip_norm": 1.0}}, "Clipped, at a tenth of the rate.", told)


def _dead(record: Record) -> Iterator[Offer]:
    told = ("dead_units", "down", "below 10 %", "Maas, Hannun and Ng 2013")
    model = record.spec.model
    if getattr(model, "init", None) is not None:
        yield Offer(_init(record, "he_normal"), "Weights of both signs keep units alive on some samples.", told)
    if getattr(model, "activation", None) == "relu":
        yield Offer(model_patch(record, activation="leaky_relu"), "A slope below 0 brings dead units back.", told)
    if getattr(model, "norm", None) == "none":
        yield Offer(model_patch(record, norm="batch"), "Centred inputs are above 0 for half of the samples.", told)
    yield Offer(rate_patch(record, 0.1), "Smaller steps do not push units out of reach.", told)


def _symmetric(record: Record) -> Iterator[Offer]:
    told = ("train_loss", "down", "below a constant's within an epoch or two", "Glorot and Bengio 2010; He et al. 2015")
    for kind in dict.fromkeys((_usual_init(record), "xavier_uniform", "orthogonal")):
        yield Offer(_init(record, kind), "Random weights let units learn different things.", told)


def _saturated(record: Record) -> Iterator[Offer]:
    told = ("saturated_units", "down", "below 10 %", "Glorot and Bengio 2010")
    if getattr(record.spec.model, "init", None) is not None:
        yield Offer(_init(record, "xavier_uniform"), "Weights whose sums stay where the slope is.", told)
    if not any(step.kind == "z_score" for step in record.spec.preprocess):
        yield Offer(scaled_patch(record), "Inputs of unit size keep sums where the slope is.", told)
    if getattr(record.spec.model, "norm", None) == "none":
        yield Offer(model_patch(record, norm="batch"), "Normalised sums stay where the slope is.", told)
    yield Offer(rate_patch(record, 0.1), "Smaller steps do not push units to the ends.", told)


def _unscaled(record: Record) -> Iterator[Offer]:
    told = ("train_loss", "down", "from near a constant's at the start, at the same rate", "LeCun et al. 1998")
    yield Offer(scaled_patch(record), "Every input with mean 0 and deviation 1.", told)
    squeezed = [
        {"kind": "min_max", "range": [-1.0, 1.0]} if step["kind"] == "z_score" else step
        for step in scaled_patch(record)["preprocess"]
    ]
    yield Offer({"preprocess": squeezed}, "Every input between -1 and 1.", told)


def _noise(record: Record) -> Iterator[Offer]:
    yield Offer(
        _restrained(record),
        "Clean samples are learnt first; a network held back has no room for the others.",
        ("val_loss", "down", "a little below its least in this run, and no rise from it", "Arpit et al. 2017"),
    )
    kind = record.spec.loss.kind if record.spec.loss else ""
    if kind == "cross_entropy":
        yield Offer(
            {"regularize": {"label_smoothing": 0.1}},
            "Smoothed labels punish less for being against a wrong one.",
            ("val_accuracy", "up", "a little", "Lukasik et al. 2020"),
        )
    yield Offer(
        _early_stop(record),
        "Clean samples are learnt first: end before the others are.",
        ("seconds", "down", "the epochs behind the best one; the model stays the same", "Arpit et al. 2017"),
    )


def _imbalance(record: Record) -> Iterator[Offer]:
    told = ("val_recall", "up", "the small classes' most of all; the accuracy may fall a little", "He and Garcia 2009")
    yield Offer({"balance": "class_weights", "train": {"monitor": "val_recall"}}, "Each class counts alike.", told)
    yield Offer({"balance": "oversample"}, "Samples of small classes are shown more often.", told)
    if record.spec.loss is not None and record.spec.loss.kind == "cross_entropy":
        patch = {"loss": replacing(record.spec.loss.model_dump(), {"kind": "focal"})}
        yield Offer(patch, "Easy samples of the large class count less.", told)


def _mismatch(record: Record) -> Iterator[Offer]:
    told = ("test_loss", "down", "to that of validation, within the noise", "this record")
    if record.facts.splits and record.spec.split.keeps_shipped:
        patch: Patch = {"split": {"use_predefined": False}}
        yield Offer(patch, "One cut at random: all parts alike. Shows whether the shipped parts differ.", told)
    if record.resolved and record.resolved.sample.form == "image" and not record.spec.augment:
        patch = {"augment": [{"kind": "brightness"}, {"kind": "contrast"}, {"kind": "translate"}]}
        yield Offer(patch, "Training sees more of what test may look like.", told)
    yield Offer(
        {"split": {"seed": (record.spec.split.seed + 1) % 2**31}}, "Another cut shows whether it was chance.", told
    )


def _leak(record: Record) -> Iterator[Offer]:
    metric = "val_accuracy" if record.classification else "val_r2"
    told = (metric, "down", "by what was given away, to what is true", "this record")
    names = giveaway_columns(record)
    if names and record.facts.kind == "table":
        asked = record.spec.dataset.model_dump(mode="json", exclude_defaults=True)
        without = {"dataset": {**asked, "ignore": [*record.spec.dataset.ignore, *names]}}
        yield Offer(without, "Without the columns that tell the answer, what is left has to be learnt.", told)
    if not names or record.findings("leakage", "near_leakage", "duplicates"):
        why = "Each sample in one part alone: held-out ones are new to training."
        yield Offer({"split": {"copies": "drop"}}, why, told)


def _small_validation(record: Record) -> Iterator[Offer]:
    told = ("val_accuracy_se", "down", "with the root of the size: four times as many halve it", "binomial")
    shipped: Patch = {"use_predefined": False} if (record.facts.splits or {}).get("validation") else {}
    for train, validation in ((6.0, 2.0), (5.0, 3.0)):
        share = {"train": train, "validation": validation, "test": 2.0 if record.spec.split.test else 0.0}
        yield Offer({"split": {**shipped, **share}}, f"A validation part of {validation / 10:.0%} or more.", told)


def _longer_offers(record: Record) -> Iterator[Offer]:
    told = ("val_loss", "down", "by about what the last quarter gained, again", "this record")
    yield Offer(_longer(record, 2), "Twice the epochs: it still gained at the end.", told)
    yield Offer({**_longer(record, 2), **_early_stop(record)}, "Twice the epochs, ended when it gains no more.", told)
    yield Offer(rate_patch(record, 3.0), "Three times the rate in the same time.", told)


def _loss(record: Record) -> Iterator[Offer]:
    old = record.spec.loss.model_dump() if record.spec.loss else {}
    if record.classification:
        told = ("val_accuracy", "up", "sooner; the loss becomes a log-likelihood", "Golik, Doetsch and Ney 2013")
        yield Offer({"loss": replacing(old, {"kind": "cross_entropy"})}, "Its gradient stays where it is wrong.", told)
        return
    told = ("val_mae", "down", "clearly; the squared error may rise", "Huber 1964")
    if old.get("kind") == "mse":
        yield Offer(
            {"loss": replacing(old, {"kind": "huber"})}, "Large residuals count by their size, not its square.", told
        )
        yield Offer({"loss": replacing(old, {"kind": "mae"})}, "Predicts the median.", told)
    if record.facts.kind == "table":
        patch: Patch = {
            "task": "classification",
            "target_scaling": "auto",
            "loss": {**dict.fromkeys(old), "kind": "cross_entropy"},
        }
        yield Offer(patch, "The values as classes.", ("val_accuracy", "up", "measured at all", "this record"))


REMEDIES: dict[Code, Callable[[Record], Iterator[Offer]]] = {
    "overfitting": _overfitting,
    "underfitting_model_bias": _underfitting,
    "optimization_failure": _optimization,
    "learning_rate_too_high": _too_high,
    "learning_rate_too_low": _too_low,
    "vanishing_gradients": _vanishing,
    "exploding_gradients": _exploding,
    "dead_units": _dead,
    "symmetric_initialization": _symmetric,
    "saturated_activations": _saturated,
    "unscaled_inputs": _unscaled,
    "label_noise": _noise,
    "class_imbalance": _imbalance,
    "distribution_mismatch": _mismatch,
    "leakage": _leak,
    "validation_too_small": _small_validation,
    "stopped_too_early": _longer_offers,
    "wrong_loss": _loss,
}


def _round(value: float) -> float:
    return float(f"{value:.3g}")
