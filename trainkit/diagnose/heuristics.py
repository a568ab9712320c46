"""What generally helps, as patches with their reasons: for a run in which the rules find nothing more to cure.

The order follows where the best evaluation lies. A run that was best at its end has not been trained out: more and
larger steps and more capacity come first. One that was best long before has: what keeps it from learning by heart does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import ceil
from typing import Any

from trainkit.diagnose.recommendations import (
    Offer,
    Patch,
    model_patch,
    narrower_patch,
    rate_patch,
    scaled_patch,
    wider_patch,
)
from trainkit.diagnose.record import Record

FEW_STEPS = 1000
"""Updates below which a run is short whatever its data: Adam at 1e-3 moves a weight by at most 1 in them."""
MOST_TIMES = 5
"""At most so many times the epochs in one move: where that helped, there is another."""
LATE = 0.85
"""The best evaluation in the last seventh of the run: it was still getting better."""
RECURRENT = ("lstm", "gru")
SCALING = ("z_score", "min_max", "whiten")
FEWEST_STEPS_AN_EPOCH = 20
LEAST_BATCH = 16


@dataclass(frozen=True, slots=True)
class RunView:
    """A run's spec on its dataset, and where in it the kept weights lie: 0 the beginning, 1 the last epoch, None if
    there are none."""

    record: Record
    place: float | None

    @property
    def form(self) -> str:
        """vector, image or sequence; empty where the facts do not tell."""
        return self.record.resolved.sample.form if self.record.resolved else ""

    @property
    def steps_an_epoch(self) -> int:
        """Updates."""
        train = self.record.spec.train
        return max(1, ceil(self.record.parts[0] / (train.batch_size * train.accumulate)))

    @property
    def fresh(self) -> bool:
        """Whether the weights begin at random, so that the architecture is free."""
        spec = self.record.spec
        return spec.start_from is None and getattr(getattr(spec.model, "init", None), "kind", "") != "pretrained"

    def model(self, name: str) -> Any:
        """A field of the model's spec; None where that kind has none."""
        return getattr(self.record.spec.model, name, None)


Move = Callable[[RunView], Offer | None]


def _told(size: str, source: str, metric: str = "val_loss") -> tuple[str, str, str, str]:
    return metric, "down", size, source


def scaled(sight: RunView) -> Offer | None:
    """z_score in front of a network that gets numbers of any size."""
    if any(step.kind in SCALING for step in sight.record.spec.preprocess):
        return None
    why = "Inputs of mean 0 and deviation 1 make the loss equally steep in all directions."
    return Offer(
        scaled_patch(sight.record), why, _told("sooner and further, the more the inputs differ", "LeCun et al. 1998")
    )


def both_ways(sight: RunView) -> Offer | None:
    """A recurrent network that reads the sequence in both directions, and classifies by all of its states."""
    kind = sight.record.spec.model.kind
    if kind not in RECURRENT or (sight.model("bidirectional") and sight.model("pooling") == "mean"):
        return None
    if sight.record.spec.task == "forecasting":
        return None
    patch = model_patch(sight.record, bidirectional=True, pooling="mean")
    why = "Read both ways, and with the mean over the steps, no step is further from the output than another."
    return Offer(patch, why, _told("clearly, on sequences that are known as a whole", "Graves and Schmidhuber 2005"))


def places_kept(sight: RunView) -> Offer | None:
    """A head that sees where in the image a feature lies, where the maps are small enough for it."""
    places = _last_map(sight)
    if sight.model("head") != "global_average" or not 1 < places <= 64:
        return None
    why = "The mean over all places forgets where a feature was; in centred pictures that tells the class."
    return Offer(
        model_patch(sight.record, head="flatten"), why, _told("clearly, where place matters", "LeCun et al. 1998")
    )


def deeper(sight: RunView) -> Offer | None:
    """One more block of a convolutional network, as long as its maps are at least 4 x 4."""
    channels = sight.model("channels")
    if channels is None or _last_map(sight) < 16:
        return None
    why = "Another block sees more of the picture at once."
    patch = model_patch(sight.record, channels=[*channels, 2 * channels[-1]])
    return Offer(patch, why, _told("clearly, while training still gains", "Simonyan and Zisserman 2015"))


def _last_map(sight: RunView) -> int:
    """Places of the last feature map of a convolutional network; 0 for any other model."""
    channels, resolved = sight.model("channels"), sight.record.resolved
    if channels is None or resolved is None or resolved.sample.form != "image":
        return 0
    halvings = len(channels) - (sight.record.spec.model.kind == "residual_cnn")
    if sight.model("pool") == "none":
        halvings = 0
    _, height, width = resolved.sample.shape
    return max(1, height >> halvings) * max(1, width >> halvings)


def longer(sight: RunView) -> Offer | None:
    """Twice the epochs, or as many as make 1000 updates, under a rate that falls by a cosine."""
    if sight.record.spec.schedule.kind != "constant":
        return None
    return _more_epochs(
        sight, {"schedule": _cosine(sight)}, ", at a rate that falls to 0, so that the end is not noise"
    )


def longer_still(sight: RunView) -> Offer | None:
    """The same for a run whose rate falls already."""
    return None if sight.record.spec.schedule.kind == "constant" else _more_epochs(sight, {}, "")


def _more_epochs(sight: RunView, beside: Patch, how: str) -> Offer | None:
    spec = sight.record.spec
    if spec.start_from is not None and spec.start_from.phases:
        return None
    done = sight.steps_an_epoch * spec.train.epochs
    times = min(MOST_TIMES, max(2, ceil(FEW_STEPS / done)))
    patch: Patch = {"train": {"epochs": min(1_000_000, times * spec.train.epochs)}, **beside}
    late = sight.place is not None and sight.place >= LATE
    seen = f"{done} updates, and the last of them still helped" if late else f"There were {done} updates"
    told = _told("by what more steps give, without the last steps' noise", "Loshchilov and Hutter 2017")
    return Offer(patch, f"{seen}: {times} times as many{how}.", told)


def annealed(sight: RunView) -> Offer | None:
    """The rate falls by a cosine, in the same time."""
    if sight.record.spec.schedule.kind != "constant":
        return None
    why = "A rate that falls to 0 takes the noise of the last steps out of the weights."
    return Offer({"schedule": _cosine(sight)}, why, _told("a little", "Loshchilov and Hutter 2017"))


def _cosine(sight: RunView) -> dict[str, Any]:
    return {"kind": "cosine", "warmup_epochs": min(1.0, sight.record.spec.train.epochs / 10)}


def faster(sight: RunView) -> Offer | None:
    """Three times the rate."""
    why = "The rate matters more than any other setting; three times it is the next to try."
    return Offer(rate_patch(sight.record, 3.0), why, _told("further in the same time, or not at all", "Bengio 2012"))


def slower(sight: RunView) -> Offer | None:
    """A third of the rate."""
    why = "The rate matters more than any other setting; a third of it is the next to try."
    return Offer(rate_patch(sight.record, 1 / 3), why, _told("a little, where steps were too long", "Bengio 2012"))


def smaller_batches(sight: RunView) -> Offer | None:
    """Batches so small that an epoch has about 20 updates, at least 16 samples each."""
    batch = sight.record.spec.train.batch_size
    wanted = max(LEAST_BATCH, 1 << max(0, (sight.record.parts[0] // FEWEST_STEPS_AN_EPOCH).bit_length() - 1))
    if wanted > batch // 2 or sight.record.spec.train.accumulate > 1:
        return None
    why = f"{sight.steps_an_epoch} updates an epoch are few; smaller batches make more of the same samples."
    return Offer({"train": {"batch_size": wanted}}, why, _told("sooner", "Masters and Luschi 2018"))


def wider(sight: RunView) -> Offer | None:
    """Twice the width."""
    patch = wider_patch(sight.record)
    why = "Twice the width: larger networks reach lower losses, with the best weights kept also on new data."
    return None if patch is None else Offer(patch, why, _told("a little", "Kaplan et al. 2020; Nakkiran et al. 2020"))


def narrower(sight: RunView) -> Offer | None:
    """Half the width."""
    patch = narrower_patch(sight.record)
    why = "Half the width learns less by heart."
    return None if patch is None else Offer(patch, why, _told("a little, on few samples", "Geman et al. 1992"))


def normalised(sight: RunView) -> Offer | None:
    """Batch norm in an MLP that has no norm."""
    if sight.model("norm") != "none":
        return None
    why = "Normalised layers allow larger steps, and each batch's own mean is a noise that regularises."
    return Offer(model_patch(sight.record, norm="batch"), why, _told("sooner", "Ioffe and Szegedy 2015"))


def moved_pictures(sight: RunView) -> Offer | None:
    """Small shifts and turns; no mirroring, which may turn one class into another (digits, letters)."""
    if sight.form != "image" or sight.record.spec.augment or _flattened(sight):
        return None
    moves = [{"kind": "translate", "fraction": 0.1}, {"kind": "rotate", "degrees": 10}]
    why = "Pictures shifted and turned a little keep their class, and are new samples of it."
    return Offer({"augment": moves}, why, _told("clearly, where pictures are few", "Simard et al. 2003"))


def mixed(sight: RunView) -> Offer | None:
    """MixUp, after what there is."""
    steps = [step.model_dump(mode="json") for step in sight.record.spec.augment]
    if sight.record.spec.task == "forecasting" or any(step["kind"] in ("mixup", "cutmix") for step in steps):
        return None
    why = "Mixtures of two samples keep the network from jumping between them."
    return Offer({"augment": [*steps, {"kind": "mixup"}]}, why, _told("a little", "Zhang et al. 2018"))


def _flattened(sight: RunView) -> bool:
    return any(step.kind in ("pca", "whiten") for step in sight.record.spec.preprocess)


def dropped(sight: RunView) -> Offer | None:
    """Dropout of 0.2, or of 0.5 where there is as much."""
    now = sight.model("dropout")
    if now is None or now >= 0.5 or sight.record.spec.model.kind == "torchvision":
        return None
    why = "Dropped units cannot learn samples by heart together."
    more = 0.2 if now < 0.2 else 0.5
    return Offer(
        model_patch(sight.record, dropout=more), why, _told("a little, on few samples", "Srivastava et al. 2014")
    )


def decayed(sight: RunView) -> Offer | None:
    """Decoupled decay, so strong that weights forget over two lengths of the run: 1 / (2 lr T), from 0.01 to 1."""
    spec = sight.record.spec
    if spec.regularize.weight_decay or spec.regularize.l2 or spec.optimizer.kind not in ("adam", "adamw", "nadam"):
        return None
    steps = sight.steps_an_epoch * spec.train.epochs
    decay = float(f"{min(1.0, max(0.01, 0.5 / (spec.optimizer.lr * steps))):.1g}")
    why = "Smaller weights make a smoother function; decoupled from the gradient's scale."
    return Offer({"regularize": {"weight_decay": decay}}, why, _told("a little", "Loshchilov and Hutter 2019"))


def smoothed(sight: RunView) -> Offer | None:
    """Label smoothing of 0.05."""
    spec = sight.record.spec
    if spec.loss is None or spec.loss.kind != "cross_entropy" or spec.regularize.label_smoothing:
        return None
    why = "Targets that are not quite sure keep the outputs from growing without end."
    told = ("val_accuracy", "up", "a little", "Szegedy et al. 2016")
    return Offer({"regularize": {"label_smoothing": 0.05}}, why, told)


FIRST: tuple[Move, ...] = (scaled, both_ways, places_kept)
UNFINISHED: tuple[Move, ...] = (
    longer,
    faster,
    smaller_batches,
    deeper,
    moved_pictures,
    wider,
    longer_still,
    normalised,
    dropped,
    decayed,
    mixed,
    smoothed,
    slower,
)
PAST_ITS_BEST: tuple[Move, ...] = (
    moved_pictures,
    dropped,
    annealed,
    decayed,
    normalised,
    mixed,
    deeper,
    wider,
    slower,
    smoothed,
    faster,
    narrower,
    longer,
)
BROKEN: tuple[Move, ...] = (scaled, slower, normalised, narrower)
ARCHITECTURE: frozenset[Move] = frozenset({both_ways, places_kept, deeper, wider, narrower, normalised})


def moves(sight: RunView) -> Iterator[tuple[str, Offer]]:
    """(name, offer) of every general move that this run leaves open, the likeliest to help first."""
    after = UNFINISHED if (sight.place or 0.0) >= LATE else PAST_ITS_BEST
    for move in BROKEN if sight.place is None else (*FIRST, *after):
        if move in ARCHITECTURE and not sight.fresh:
            continue
        if (offer := move(sight)) is not None:
            yield move.__name__, offer
