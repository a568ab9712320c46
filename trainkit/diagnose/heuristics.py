"""Heuristics: changes of a spec that generally help, for runs whose diagnosis has no recommendation left.

Their order depends on where the best evaluation lies. If it is the last one, training is unfinished: more or larger
steps and more capacity come first. If it is much earlier, the run overfits: regularization comes first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import ceil
from typing import Any

from trainkit.diagnose.record import Record
from trainkit.diagnose.spec_changes import (
    Change,
    Patch,
    model_patch,
    narrower_patch,
    rate_patch,
    scaled_patch,
    wider_patch,
)
from trainkit.spec.facts import column_steps

MIN_UPDATES = 1000
"""A run of fewer updates is short: with Adam at 1e-3 it moves a weight by at most 1."""
MAX_EPOCH_FACTOR = 5
"""Largest factor for the number of epochs in one step; another step can follow."""
LATE_POSITION = 0.85
"""A best evaluation in the last 15 % of the run means that it was still improving."""
RECURRENT = ("lstm", "gru")
SCALING = ("z_score", "min_max", "whiten")
MIN_UPDATES_PER_EPOCH = 20
MIN_BATCH_SIZE = 16


@dataclass(frozen=True, slots=True)
class RunView:
    """A run and the position of its kept weights: 0 is its start, 1 its last epoch, None if it kept no weights."""

    record: Record
    best_position: float | None

    @property
    def form(self) -> str:
        """Form of a sample: vector, image or sequence; empty if unknown."""
        return self.record.resolved.sample.form if self.record.resolved else ""

    @property
    def updates_per_epoch(self) -> int:
        """Number of optimizer steps in an epoch."""
        train = self.record.spec.train
        if train.steps_per_epoch is not None:
            return train.steps_per_epoch
        return max(1, ceil(self.record.parts[0] / (train.batch_size * train.gradient_accumulation_steps)))

    @property
    def has_random_weights(self) -> bool:
        """Whether the weights start at random, so that the architecture may change."""
        spec = self.record.spec
        return spec.start_from is None and getattr(getattr(spec.model, "init", None), "kind", "") != "pretrained"

    def model(self, name: str) -> Any:
        """Return a field of the model's spec; None for a kind without it."""
        return getattr(self.record.spec.model, name, None)


Heuristic = Callable[[RunView], Change | None]


def _expected(size: str, source: str, metric: str = "val_loss") -> tuple[str, str, str, str]:
    return metric, "down", size, source


def z_score(view: RunView) -> Change | None:
    """Add z_score to inputs that are not scaled."""
    if any(step.kind in SCALING for step in column_steps(view.record.spec)):
        return None
    why = "Inputs of mean 0 and standard deviation 1 make the loss equally steep in all directions."
    return Change(
        scaled_patch(view.record),
        why,
        _expected("faster and lower, the more the inputs differ in scale", "LeCun et al. 1998"),
    )


def bidirectional(view: RunView) -> Change | None:
    """Make a recurrent classifier bidirectional, with mean pooling over the steps."""
    kind = view.record.spec.model.kind
    if kind not in RECURRENT or (view.model("bidirectional") and view.model("pooling") == "mean"):
        return None
    if view.record.spec.task == "forecasting":
        return None
    patch = model_patch(view.record, bidirectional=True, pooling="mean")
    why = "In both directions and with the mean over the steps, every step is equally near to the output."
    return Change(patch, why, _expected("clearly, on complete sequences", "Graves and Schmidhuber 2005"))


def flatten_head(view: RunView) -> Change | None:
    """Replace global average pooling by a flattened head, if the feature maps are small enough."""
    map_size = _last_map_size(view)
    if view.model("head") != "global_average" or not 1 < map_size <= 64:
        return None
    why = "Global average pooling loses the position of a feature, which helps to classify centred images."
    return Change(
        model_patch(view.record, head="flatten"), why, _expected("clearly, where positions matter", "LeCun et al. 1998")
    )


def deeper(view: RunView) -> Change | None:
    """Add a block to a convolutional network whose feature maps are at least 4 x 4."""
    channels = view.model("channels")
    if channels is None or _last_map_size(view) < 16:
        return None
    why = "Another block has a larger receptive field."
    patch = model_patch(view.record, channels=[*channels, 2 * channels[-1]])
    return Change(patch, why, _expected("clearly, while training still gains", "Simonyan and Zisserman 2015"))


def _last_map_size(view: RunView) -> int:
    """Return the number of positions in the last feature map of a convolutional network; 0 for other models."""
    channels, resolved = view.model("channels"), view.record.resolved
    if channels is None or resolved is None or resolved.sample.form != "image":
        return 0
    halvings = len(channels) - (view.record.spec.model.kind == "residual_cnn")
    if view.model("pool") == "none":
        halvings = 0
    _, height, width = resolved.sample.shape
    return max(1, height >> halvings) * max(1, width >> halvings)


def more_epochs_with_cosine(view: RunView) -> Change | None:
    """Train twice the epochs, or 1000 updates, with a cosine schedule."""
    if view.record.spec.schedule.kind != "constant":
        return None
    return _more_epochs(view, {"schedule": _cosine(view)}, ", with a learning rate that falls to 0")


def more_epochs(view: RunView) -> Change | None:
    """Train longer a run that has a schedule already."""
    return None if view.record.spec.schedule.kind == "constant" else _more_epochs(view, {}, "")


def _more_epochs(view: RunView, beside: Patch, how: str) -> Change | None:
    spec = view.record.spec
    if spec.start_from is not None and spec.start_from.phases:
        return None
    done = view.updates_per_epoch * spec.train.epochs
    times = min(MAX_EPOCH_FACTOR, max(2, ceil(MIN_UPDATES / done)))
    patch: Patch = {"train": {"epochs": min(1_000_000, times * spec.train.epochs)}, **beside}
    late = view.best_position is not None and view.best_position >= LATE_POSITION
    seen = f"The run had {done} updates and was still improving" if late else f"The run had {done} updates"
    expected = _expected("by the gain of more steps", "Loshchilov and Hutter 2017")
    return Change(patch, f"{seen}; this one has {times} times as many{how}.", expected)


def cosine_schedule(view: RunView) -> Change | None:
    """Add a cosine schedule, with the same number of epochs."""
    if view.record.spec.schedule.kind != "constant":
        return None
    why = "A learning rate that falls to 0 reduces the noise of the last steps."
    return Change({"schedule": _cosine(view)}, why, _expected("a little", "Loshchilov and Hutter 2017"))


def _cosine(view: RunView) -> dict[str, Any]:
    return {"kind": "cosine", "warmup_epochs": min(1.0, view.record.spec.train.epochs / 10)}


def higher_learning_rate(view: RunView) -> Change | None:
    """Triple the learning rate."""
    why = "The learning rate is the most important setting; three times its value is the next to try."
    return Change(rate_patch(view.record, 3.0), why, _expected("lower in the same time, or no gain", "Bengio 2012"))


def lower_learning_rate(view: RunView) -> Change | None:
    """Take a third of the learning rate."""
    why = "The learning rate is the most important setting; a third of its value is the next to try."
    return Change(rate_patch(view.record, 1 / 3), why, _expected("a little, where steps were too large", "Bengio 2012"))


def smaller_batches(view: RunView) -> Change | None:
    """Reduce the batch size so that an epoch has about 20 updates, to no less than 16."""
    train = view.record.spec.train
    batch = train.batch_size
    target = max(MIN_BATCH_SIZE, 1 << max(0, (view.record.parts[0] // MIN_UPDATES_PER_EPOCH).bit_length() - 1))
    if target > batch // 2 or train.gradient_accumulation_steps > 1 or train.steps_per_epoch is not None:
        return None
    why = f"{view.updates_per_epoch} updates per epoch are few; smaller batches give more updates."
    return Change({"train": {"batch_size": target}}, why, _expected("faster", "Masters and Luschi 2018"))


def wider(view: RunView) -> Change | None:
    """Double the width."""
    patch = wider_patch(view.record)
    why = "Larger networks reach a lower loss, also on new data if the best weights are kept."
    return (
        None if patch is None else Change(patch, why, _expected("a little", "Kaplan et al. 2020; Nakkiran et al. 2020"))
    )


def narrower(view: RunView) -> Change | None:
    """Halve the width."""
    patch = narrower_patch(view.record)
    why = "A network of half the width can memorise less."
    return None if patch is None else Change(patch, why, _expected("a little, on few samples", "Geman et al. 1992"))


def batch_norm(view: RunView) -> Change | None:
    """Add batch norm to an mlp without norm."""
    if view.model("norm") != "none":
        return None
    why = "Batch norm allows larger steps, and the noise of the batch statistics regularizes."
    return Change(model_patch(view.record, norm="batch"), why, _expected("faster", "Ioffe and Szegedy 2015"))


def shift_and_rotate(view: RunView) -> Change | None:
    """Augment images by small shifts and rotations; no flips, which can change the class (digits, letters)."""
    if view.form != "image" or view.record.spec.augment or _has_projection(view):
        return None
    suggest = [{"kind": "translate", "fraction": 0.1}, {"kind": "rotate", "degrees": 10}]
    why = "Slightly shifted and rotated images keep their class and are new samples of it."
    return Change({"augment": suggest}, why, _expected("clearly, where images are few", "Simard et al. 2003"))


def mixup(view: RunView) -> Change | None:
    """Add mixup after the other augmentation steps."""
    steps = [step.model_dump(mode="json") for step in view.record.spec.augment]
    if view.record.spec.task == "forecasting" or any(step["kind"] in ("mixup", "cutmix") for step in steps):
        return None
    why = "Mixtures of two samples make the outputs change smoothly between them."
    return Change({"augment": [*steps, {"kind": "mixup"}]}, why, _expected("a little", "Zhang et al. 2018"))


def _has_projection(view: RunView) -> bool:
    return any(step.kind in ("pca", "whiten") for step in (view.record.spec.preprocess or ()))


def dropout(view: RunView) -> Change | None:
    """Raise dropout to 0.2, or to 0.5 from there."""
    now = view.model("dropout")
    if now is None or now >= 0.5 or view.record.spec.model.kind == "torchvision":
        return None
    why = "Dropout makes it harder to memorise single samples."
    more = 0.2 if now < 0.2 else 0.5
    return Change(
        model_patch(view.record, dropout=more), why, _expected("a little, on few samples", "Srivastava et al. 2014")
    )


def weight_decay(view: RunView) -> Change | None:
    """Add decoupled weight decay 1 / (2 lr T) for T updates, between 0.01 and 1: a time constant of two runs."""
    spec = view.record.spec
    if spec.regularize.weight_decay or spec.regularize.l2 or spec.optimizer.kind not in ("adam", "adamw", "nadam"):
        return None
    steps = view.updates_per_epoch * spec.train.epochs
    decay = float(f"{min(1.0, max(0.01, 0.5 / (spec.optimizer.lr * steps))):.1g}")
    why = "Smaller weights give a smoother function; decoupled decay does not depend on the scale of the gradient."
    return Change({"regularize": {"weight_decay": decay}}, why, _expected("a little", "Loshchilov and Hutter 2019"))


def label_smoothing(view: RunView) -> Change | None:
    """Add label smoothing of 0.05."""
    spec = view.record.spec
    if spec.loss is None or spec.loss.kind != "cross_entropy" or spec.regularize.label_smoothing:
        return None
    why = "Smoothed targets keep the outputs from growing without limit."
    expected = ("val_accuracy", "up", "a little", "Szegedy et al. 2016")
    return Change({"regularize": {"label_smoothing": 0.05}}, why, expected)


FIRST_CHOICES: tuple[Heuristic, ...] = (z_score, bidirectional, flatten_head)
UNFINISHED: tuple[Heuristic, ...] = (
    more_epochs_with_cosine,
    higher_learning_rate,
    smaller_batches,
    deeper,
    shift_and_rotate,
    wider,
    more_epochs,
    batch_norm,
    dropout,
    weight_decay,
    mixup,
    label_smoothing,
    lower_learning_rate,
)
OVERTRAINED: tuple[Heuristic, ...] = (
    shift_and_rotate,
    dropout,
    cosine_schedule,
    weight_decay,
    batch_norm,
    mixup,
    deeper,
    wider,
    lower_learning_rate,
    label_smoothing,
    higher_learning_rate,
    narrower,
    more_epochs_with_cosine,
)
DIVERGED: tuple[Heuristic, ...] = (z_score, lower_learning_rate, batch_norm, narrower)
ARCHITECTURE_CHANGES: frozenset[Heuristic] = frozenset(
    {bidirectional, flatten_head, deeper, wider, narrower, batch_norm}
)


def suggest(view: RunView) -> Iterator[tuple[str, Change]]:
    """Yield (name, change) of every heuristic that applies to this run, the most promising first."""
    after = UNFINISHED if (view.best_position or 0.0) >= LATE_POSITION else OVERTRAINED
    for heuristic in DIVERGED if view.best_position is None else (*FIRST_CHOICES, *after):
        if heuristic in ARCHITECTURE_CHANGES and not view.has_random_weights:
            continue
        if (change := heuristic(view)) is not None:
            yield heuristic.__name__, change
