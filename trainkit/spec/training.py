"""How the loop runs: penalties, epochs, transfer, adaptation, resources."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, field_validator, model_validator

from trainkit.spec.base import NonNegative, Positive, Rate, Seed, SpecModel, Width

SanityCheck = Literal["first_batch", "small_model"]


class PenaltyFactors(NamedTuple):
    """Factors of L = L0 + l1 * sum |w| + (l2/2) * sum w^2, whatever `scale` the spec has."""

    l1: float
    l2: float


class RegularizeSpec(SpecModel):
    """Penalties and constraints on weights: parameters of two or more dimensions outside norm layers.

    n is the number of training samples.
    """

    l1: NonNegative = 0.0
    """L = L0 + (l1/n) * sum |w|. scikit-learn's Lasso(alpha) with the mse loss is l1 = 2 * n * alpha."""
    l1_update: Literal["auto", "proximal", "subgradient"] = "auto"
    """`proximal`: after each step w <- sign(w) * max(|w| - eta * l1/n, 0), so weights become exactly 0; with momentum
    eta is the rate of the whole step, lr/(1-b). `subgradient`: (l1/n) * sign(w) is added to the gradient; weights come
    near 0. auto: proximal with sgd and its momentum forms, where both have the same minimum; subgradient with the
    others, whose steps have another rate for each weight (proximal is decoupled there, as weight_decay is)."""
    l2: NonNegative = 0.0
    """L = L0 + (l2/2n) * sum w^2, equal to SGD with weight_decay = l2/n."""
    scale: Literal["mean", "sum"] = "mean"
    """`mean` divides l1 and l2 by n, as above. `sum` does not: l2 is then PyTorch's weight_decay of SGD, and twice the
    number of Keras's L2; l1 is the number of Keras's L1."""
    weight_decay: NonNegative = 0.0
    """Decoupled: w <- w - eta * weight_decay * w beside any optimizer."""
    max_norm: Positive | None = None
    """After each step project every unit's incoming weights to at most this norm (usually 3 or 4)."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Mix the one-hot targets with the uniform distribution by this share (cross_entropy and focal)."""

    def factors(self, samples: int) -> PenaltyFactors:
        """Return the penalties' factors for so many training samples."""
        divisor = samples if self.scale == "mean" else 1
        return PenaltyFactors(self.l1 / divisor, self.l2 / divisor)

    def gradient_factors(self, samples: int) -> PenaltyFactors:
        """Return the factors of the penalties whose gradient is added: all but an l1 that is a proximal step."""
        factors = self.factors(samples)
        return factors._replace(l1=0.0) if self.l1_update == "proximal" else factors

    def proximal_l1(self, samples: int) -> float:
        """Return l1's factor where it is a proximal step, else 0."""
        return self.factors(samples).l1 if self.l1_update == "proximal" else 0.0


class TrainSpec(SpecModel):
    """The loop."""

    epochs: Annotated[int, Field(ge=1, le=1_000_000)] = 20
    """Passes over the training part; with `steps_per_epoch`, stretches of so many steps."""
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)] = 64
    """Samples of a forward and backward pass, and of a step unless it accumulates; an epoch's last may be smaller."""
    gradient_accumulation_steps: Annotated[int, Field(ge=1, le=100_000)] = 1
    """Forward and backward passes of `batch_size` samples whose gradients make one optimizer step."""
    steps_per_epoch: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Optimizer steps of an epoch, as in Keras: the next epoch goes on where this one stopped, and a new pass over the
    training part begins when all its samples were taken. Left out: an epoch is one pass."""
    seed: Seed = 0
    """Seed of the init, the order, the augmentation and the dropout."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format of the forward and backward pass; auto: float32 on CPU, bfloat16 autocast where it pays."""
    threads: Annotated[int, Field(ge=1, le=256)] | Literal["auto"] = "auto"
    """CPU threads of the training process; auto calibrates once and records the choice."""
    deterministic: bool = True
    """Same spec, seed, versions, device and threads: the same bits."""
    checkpoint_seconds: NonNegative = 30.0
    """Time between checkpoints, a tenth of it before that of a new best; 0 checkpoints after every evaluation."""
    evaluate_every_epochs: Annotated[int, Field(ge=1)] = 1
    """Epochs between evaluations; the last epoch is always evaluated."""
    evaluate_every_steps: Annotated[int, Field(ge=1)] | None = None
    """Steps between evaluations, in place of epochs; the end of training is always evaluated."""
    log_every_steps: Annotated[int, Field(ge=1)] | None = None
    """Steps between rows of the running training loss; left out: a tenth of an epoch, at least 10."""
    log_stats: Literal["layers", "totals", "none"] = "layers"
    """What is logged beside losses and metrics: norms and idle units of each layer, only in total, or nothing."""
    sanity_checks: tuple[SanityCheck, ...] = Field((), max_length=2)
    """Short trainings before this one that help its diagnosis: `first_batch`, `small_model`. They change none of its bits."""
    restore_best: bool = True
    """End with the best weights seen, for whatever reason training ends."""
    monitor: str | None = None
    """What "best" means, such as val_accuracy; left out: the first (noise) patience rule's monitor, else val_loss."""
    clip_norm: Positive | None = None
    """Scale the whole gradient down to this norm."""
    clip_value: Positive | None = None
    """Clamp each gradient entry to [-clip_value, clip_value]."""
    channels_last: bool | Literal["auto"] = "auto"
    """Memory layout of image batches; auto decides by device and model."""
    compile: bool | Literal["auto"] = "auto"
    """torch.compile; auto: off. Compiling takes from half a minute on; on the CPU it needs a C++ compiler."""

    @field_validator("sanity_checks")
    @classmethod
    def each_once(cls, value: tuple[SanityCheck, ...]) -> tuple[SanityCheck, ...]:
        if len(set(value)) != len(value):
            raise ValueError("each sanity check may be named once")
        return value


class BlockRange(SpecModel):
    """Some of the body's blocks: the first, which lie next to the input, or the last, next to the head."""

    first: Annotated[int, Field(ge=1)] | None = None
    """So many blocks from the input on (shallow ones)."""
    last: Annotated[int, Field(ge=1)] | None = None
    """So many blocks before the head (deep ones)."""

    @model_validator(mode="after")
    def one_end(self) -> BlockRange:
        if (self.first is None) == (self.last is None):
            raise ValueError("give either `first` or `last`, such as {first: 2}")
        return self


BlockNames = Annotated[tuple[Annotated[str, Field(min_length=1, max_length=100)], ...], Field(min_length=1)]
"""Blocks of the body by name, such as [layer3, layer4]: torchvision's own names, or block_1, stage_1_block_1 ..."""


Blocks = int | Literal["none", "all"] | BlockRange | tuple[str, ...]
"""Some of a body's blocks: N for the last N, `{first: N}`, `{last: N}`, names, or none or all of them."""


def chosen_blocks(names: Sequence[str], blocks: Blocks) -> list[str]:
    """Return those of `names` (from input to output) that `blocks` means.

    Raises ValueError for more blocks than there are, and for a name that is none of them.
    """
    if blocks in ("none", "all"):
        return list(names) if blocks == "all" else []
    known = ", ".join(names) or "none"
    if isinstance(blocks, tuple):
        if unknown := [name for name in blocks if name not in names]:
            raise ValueError(f"the body has no block {', '.join(unknown)}; its blocks are {known}")
        return [name for name in names if name in blocks]
    first = blocks.first if isinstance(blocks, BlockRange) else None
    last = blocks.last if isinstance(blocks, BlockRange) else blocks
    count = first if first is not None else int(last or 0)
    if count > len(names):
        raise ValueError(f"{count} blocks are asked for, and the body has {len(names)}: {known}")
    return list(names[:count]) if first is not None else list(names[len(names) - count :])


class Phase(SpecModel):
    """A stretch of fine-tuning with its own open layers and rate."""

    epochs: Annotated[int, Field(ge=1)]
    """Epochs of this phase."""
    unfreeze: Annotated[int, Field(ge=0)] | Literal["none", "all"] | BlockRange | BlockNames = "none"
    """What is trained beside the head: `none`; N or `{last: N}` deep blocks; `{first: N}` shallow ones; names; `all`."""
    lr: Rate | None = None
    """Rate of the head (and of the body unless `body_lr` is given); left out: the optimizer's."""
    body_lr: Rate | None = None
    """Rate of the unfrozen body blocks, usually far smaller, such as 1e-5."""


class StartFrom(SpecModel):
    """Transfer learning: begin with the body of a trained model."""

    job: str | None = None
    """A finished job (`job_...`)."""
    # 120 and not 100, as names of blocks have: openapi-generator takes equal schemas for one, and nulls get into those lists
    variant: str | None = Field(None, min_length=1, max_length=120)
    """With a `job` that is an investigation: the variant whose trained weights are taken, as its findings name it."""
    model: str | None = None
    """A model: its id, `name` (the newest version), `name:version` or `name@alias`."""
    dataset: str | None = None
    """An uploaded safetensors file: id or name of a dataset of kind weights."""
    file: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    """A weight file name in the worker's weights folder."""
    match: Literal["name", "position"] = "name"
    """Pair tensors by name, or by order and shape."""
    head: Literal["new", "keep"] = "new"
    """`new` draws the last layers afresh for this dataset's classes; `keep` takes them over, classes by their names."""
    head_hidden: tuple[Width, ...] = Field((), max_length=4)
    """Hidden relu layers of the new head, such as [1024]."""
    freeze: Literal["none", "body"] | BlockRange | BlockNames = "none"
    """What is not trained: `body` (all but the head); `{first: N}` shallow blocks; `{last: N}` deep blocks; names; `none`.

    Frozen batch norm stays in eval mode.
    """
    phases: tuple[Phase, ...] = Field((), max_length=16)
    """Stretches with their own open layers, which `unfreeze` names; left out: one phase of `train.epochs`."""
    cache_features: bool | Literal["auto"] = "auto"
    """Compute a fully frozen, augmentation-free body's features once and train the head on them."""

    @model_validator(mode="after")
    def one_source(self) -> StartFrom:
        if sum(source is not None for source in (self.job, self.model, self.dataset, self.file)) != 1:
            raise ValueError("name exactly one source: `job`, `model`, `dataset` or `file`")
        if self.variant is not None and self.job is None:
            raise ValueError("`variant` names a run of an investigation: give the investigation as `job`")
        if self.head == "keep" and self.head_hidden:
            raise ValueError("`head_hidden` shapes a new head: remove it, or set head: new")
        if self.phases and self.freeze not in ("none", "body"):
            raise ValueError("with `phases`, each phase's `unfreeze` names the trained blocks: set freeze: body")
        return self


class Adapt(SpecModel):
    """DANN: a gradient-reversal domain classifier trained with unlabelled target data (Ganin et al. 2016)."""

    kind: Literal["dann"] = "dann"
    target_dataset: str
    """The unlabelled dataset, by id or name, whose distribution the model should serve."""
    weight: NonNegative = 1.0
    """Final weight of the reversed gradient; it rises from 0 as 2/(1+exp(-10p)) - 1 with progress p."""
    hidden: tuple[Width, ...] = (64,)
    """Hidden widths of the domain classifier."""


class ResourcesSpec(SpecModel):
    """Where and how long."""

    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:[0-9]{1,3})?)$")] = "auto"
    """auto, cpu, cuda, cuda:N or mps; auto takes a GPU where the worker has one."""
    max_seconds: Positive | None = None
    """Stop (and keep the best model) after this much time of training."""
    max_memory_bytes: Annotated[int, Field(ge=2**20, le=2**50)] | None = None
    """Resident memory of the training process; beyond it the job is killed as `out_of_memory`, above it never begun."""
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 3
    """How often a retryable failure of the job itself is tried."""
    priority: Annotated[int, Field(ge=-100, le=100)] = 0
    """Of the project's queued jobs those with a higher one go first, then the oldest; between projects it means nothing."""
