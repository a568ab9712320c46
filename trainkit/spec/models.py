"""Model architectures. Input and output sizes come from the dataset."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, Field, field_validator, model_validator

from trainkit.spec.base import DropProbability, NonNegative, Positive, Rate, ShortForm, SpecModel, Width
from trainkit.spec.init import InitSpec
from trainkit.spec.torchvision_architectures import TORCHVISION_CLASSIFIERS, torchvision_blocks

Activation = Literal["sigmoid", "tanh", "relu", "leaky_relu", "elu", "gelu", "silu", "mish", "linear"]
Norm = Literal["none", "batch", "layer", "group"]
Head = Literal["global_average", "flatten"]


class Linear(SpecModel):
    """One linear layer: softmax regression or linear regression."""

    kind: Literal["linear"] = "linear"
    init: InitSpec | None = None
    """How the weights start; left out: Xavier uniform."""


class LinearSvm(SpecModel):
    """One linear layer trained with the multi-class hinge loss; `regularize.l2` = 1/C makes the margin soft."""

    kind: Literal["linear_svm"] = "linear_svm"
    init: InitSpec | None = None
    """How the weights start; left out: zeros (the problem is convex)."""


class Mlp(SpecModel):
    """Fully connected layers; the classic one is 784-500-500-10."""

    kind: Literal["mlp"] = "mlp"
    hidden: tuple[Width, ...] = Field((128, 64), max_length=64)
    """Width of each hidden layer."""
    activation: Activation = "relu"
    """After each hidden layer."""
    norm: Norm = "none"
    """Normalisation between the linear layer and its activation."""
    dropout: DropProbability = 0.0
    """Probability of dropping a hidden unit in training."""
    input_dropout: DropProbability = 0.0
    """Probability of dropping an input in training."""
    init: InitSpec | None = None
    """How the weights start; left out: He for relu-like activations, Xavier for the others."""


class Cnn(SpecModel):
    """Blocks of convolution, norm, activation, pooling and dropout, then a head."""

    kind: Literal["cnn"] = "cnn"
    channels: tuple[Width, ...] = Field((32, 64), min_length=1, max_length=32)
    """Output channels of each block."""
    kernel: Annotated[int, Field(ge=1, le=15)] = 3
    """Side of the square kernel; odd, so that the size is kept."""
    convs_per_block: Annotated[int, Field(ge=1, le=8)] = 1
    """Convolutions in each block before its pooling."""
    pool: Literal["max", "average", "none"] = "max"
    """2x2 pooling after each block, while the image is at least 2 wide."""
    activation: Activation = "relu"
    """After each convolution."""
    norm: Norm = "batch"
    """Between each convolution and its activation."""
    dropout: DropProbability = 0.0
    """Before the last linear layer."""
    spatial_dropout: DropProbability = 0.0
    """Probability of dropping a whole channel after each block."""
    block_dropout: DropProbability = 0.0
    """Probability of dropping single values after each block, as a Dropout layer behind each pooling does."""
    head: Head = "global_average"
    """`global_average` pools each channel to its mean; `flatten` keeps every position."""
    dense: tuple[Width, ...] = Field((), max_length=8)
    """Hidden linear layers between the pooled features and the output."""
    init: InitSpec | None = None
    """How the weights start; left out: He for relu-like activations, Xavier for the others."""

    @field_validator("kernel")
    @classmethod
    def odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError("the kernel's side must be odd, such as 3 or 5")
        return value


class ResidualCnn(SpecModel):
    """Stages of two-convolution residual blocks with batch norm; each stage after the first halves the image."""

    kind: Literal["residual_cnn"] = "residual_cnn"
    channels: tuple[Width, ...] = Field((32, 64), min_length=1, max_length=8)
    """Channels of each stage."""
    blocks_per_stage: Annotated[int, Field(ge=1, le=64)] = 1
    """Residual blocks in each stage."""
    activation: Activation = "relu"
    """After each convolution and each sum."""
    norm: Norm = "batch"
    """After each convolution."""
    dropout: DropProbability = 0.0
    """Before the last linear layer."""
    spatial_dropout: DropProbability = 0.0
    """Probability of dropping a whole channel after each block."""
    head: Head = "global_average"
    """`global_average` pools each channel to its mean; `flatten` keeps every position."""
    init: InitSpec | None = None
    """How the weights start; left out: He for relu-like activations, Xavier for the others."""


class Recurrent(SpecModel):
    """Fields shared by the recurrent models; input (B, T, F), padded and packed when lengths differ."""

    hidden: Width = 64
    """Width of the state."""
    layers: Annotated[int, Field(ge=1, le=16)] = 1
    """Stacked recurrent layers."""
    bidirectional: bool = False
    """Read the sequence both ways."""
    dropout: DropProbability = 0.0
    """Between stacked layers and before the last linear layer."""
    pooling: Literal["last", "mean"] = "last"
    """What the head sees: the last true step's state, or the mean over the true steps."""
    init: InitSpec | None = None
    """How the input weights start; left out: Xavier uniform, recurrent weights orthogonal, forget bias 1."""


class Lstm(Recurrent):
    """Long short-term memory (Hochreiter and Schmidhuber 1997)."""

    kind: Literal["lstm"] = "lstm"


class Gru(Recurrent):
    """Gated recurrent unit (Cho et al. 2014)."""

    kind: Literal["gru"] = "gru"


class Torchvision(SpecModel):
    """A classification architecture of torchvision by name: with its last layer sized to the classes, or without its top."""

    kind: Literal["torchvision"] = "torchvision"
    name: Literal[TORCHVISION_CLASSIFIERS] = "resnet18"  # type: ignore[valid-type]
    """The architecture, such as resnet18 or vgg16."""
    include_top: bool = True
    """`false`: only the body that gives feature maps, without the architecture's own pooling and dense layers."""
    head: Head | None = None
    """What `dense` and the output read without the top: each channel's mean (`global_average`), or every position.

    Left out: `global_average`; a vision transformer gives its class token, and else the mean of its patches.
    """
    dense: tuple[Width, ...] = Field((), max_length=4)
    """Hidden linear layers with relu between the features and the output, such as [1024]; they belong to the head."""
    image_size: Annotated[int, Field(ge=8, le=1024)] | None = None
    """Resize images to this side first; left out: their own size, or the least that the architecture takes."""
    dropout: DropProbability | None = None
    """Overrides the architecture's own dropout where it has one; without the top: before the output."""
    init: InitSpec | None = None
    """How the weights start; left out: the architecture's own rule, and He for `dense`."""

    @model_validator(mode="after")
    def head_without_top(self) -> Torchvision:
        if self.include_top and self.head is not None:
            raise ValueError("`head` chooses the pooling of a body without its top: set include_top: false with it")
        return self


MODEL_SHORT_FORM = ShortForm({name: {"kind": "torchvision", "name": name} for name in TORCHVISION_CLASSIFIERS})
ImageEncoderSpec = Annotated[Cnn | ResidualCnn | Torchvision, Field(discriminator="kind"), MODEL_SHORT_FORM]
ColumnEncoderSpec = Annotated[Mlp, BeforeValidator(ShortForm().write_out, json_schema_input_type=Mlp | Literal["mlp"])]


class Multimodal(SpecModel):
    """Images and the columns of their table: an encoder for each, and one head that reads both."""

    kind: Literal["multimodal"] = "multimodal"
    image: ImageEncoderSpec = Cnn()
    """What reads the image: a cnn, residual_cnn or torchvision architecture without its output layer."""
    columns: ColumnEncoderSpec = Mlp(hidden=(64, 32))
    """What reads the columns: an mlp without its output layer; with `hidden: []` the columns go to the head as they are."""
    dense: tuple[Width, ...] = Field((64,), max_length=8)
    """Hidden linear layers with relu on the features of both, joined; they belong to the head.

    With `[]` the head is one linear layer: the output is then a sum of what the image and what the columns say.
    """
    dropout: DropProbability = 0.0
    """Before the output."""
    init: InitSpec | None = None
    """How the head's weights start; left out: He with `dense`, else Xavier. The encoders have an `init` of their own."""

    @model_validator(mode="after")
    def encoders_are_drawn(self) -> Multimodal:
        for name, encoder in (("image", self.image), ("columns", self.columns)):
            if encoder.init is not None and encoder.init.kind == "pretrained":
                raise ValueError(
                    f"`{name}.init` cannot be pretrained: name the source in `start_from`, which gives its weights to the "
                    "encoder that they fit by name"
                )
        return self


def image_model(model: ModelSpec) -> Cnn | ResidualCnn | Torchvision | None:
    """Return what reads the images with convolutions or patches: the model itself, or its image encoder."""
    found = model.image if model.kind == "multimodal" else model
    return found if isinstance(found, Cnn | ResidualCnn | Torchvision) else None


def body_block_names(model: ModelSpec) -> tuple[str, ...]:
    """Names of the body's blocks from input to output, as `freeze` and `unfreeze` take them; none without a body."""
    match model.kind:
        case "mlp":
            return tuple(f"block_{number}" for number in range(1, len(model.hidden) + 1))
        case "cnn":
            dense = (f"dense_{number}" for number in range(1, len(model.dense) + 1))
            return (*(f"block_{number}" for number in range(1, len(model.channels) + 1)), *dense)
        case "residual_cnn":
            stages = range(1, len(model.channels) + 1)
            blocks = range(1, model.blocks_per_stage + 1)
            return ("stem", *(f"stage_{stage}_block_{block}" for stage in stages for block in blocks))
        case "lstm" | "gru":
            return tuple(f"layers.layer_{number}" for number in range(1, model.layers + 1))
        case "torchvision":
            return torchvision_blocks(model.name, include_top=model.include_top)
        case "multimodal":
            image = (f"image.{name}" for name in body_block_names(model.image))
            top = ("image_top",) if isinstance(model.image, Torchvision) and model.image.dense else ()
            return (*image, *top, *(f"columns.{name}" for name in body_block_names(model.columns)))
        case _:
            return ()


class Ensemble(SpecModel):
    """Several trained models that predict together; nothing is trained."""

    kind: Literal["ensemble"] = "ensemble"
    members: tuple[str, ...] = Field(min_length=2, max_length=64)
    """Models, by id, `name`, `name:version` or `name@alias`; or finished jobs (`job_...`)."""
    method: Literal["average", "vote"] = "average"
    """`average` of the probabilities (or values); `vote` of the labels, ties to the larger mean probability."""
    weights: tuple[Annotated[float, Field(gt=0)], ...] | None = None
    """One weight a member; left out: equal."""

    @model_validator(mode="after")
    def one_weight_each(self) -> Ensemble:
        if self.weights is not None and len(self.weights) != len(self.members):
            raise ValueError("give as many `weights` as `members`")
        if len(set(self.members)) != len(self.members):
            raise ValueError("each member may be named once")
        return self


class GradientBoosting(SpecModel):
    """Boosted trees on binned features: scikit-learn's HistGradientBoosting, a baseline for tables."""

    kind: Literal["gradient_boosting"] = "gradient_boosting"
    learning_rate: Rate = 0.1
    """Share of each tree that is added."""
    max_iter: Annotated[int, Field(ge=1, le=10_000)] = 100
    """Rounds of boosting; each adds a tree, beyond two classes one for each class."""
    max_leaf_nodes: Annotated[int, Field(ge=2, le=65536)] | None = 31
    """Leaves of a tree at most; null: no limit."""
    max_depth: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Splits from root to leaf at most; left out: no limit."""
    min_samples_leaf: Annotated[int, Field(ge=1)] = 20
    """Samples in a leaf at least."""
    l2_regularization: NonNegative = 0.0
    """Penalty of the leaves' squared values."""
    early_stopping: bool | Literal["auto"] = "auto"
    """Stop when a tenth of the training part, held back, gains no more; auto: above 10,000 training samples."""


class RbfSvm(SpecModel):
    """A support vector machine with a Gaussian kernel: scikit-learn's SVC and SVR, a baseline for tables."""

    kind: Literal["rbf_svm"] = "rbf_svm"
    c: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    """Price of errors beyond the margin; smaller is smoother."""
    gamma: Literal["scale", "auto"] | Positive = "scale"
    """exp(-gamma |x - y|^2); scale: 1 / (features x variance), auto: 1 / features."""
    epsilon: NonNegative = 0.1
    """Regression: errors up to this, on the scale of `target_scaling`, cost nothing."""
    standardise: bool = True
    """Features to mean 0 and deviation 1 first (StandardScaler), after `preprocess`: the kernel weighs all alike."""


SklearnModel = GradientBoosting | RbfSvm
"""What scikit-learn fits: no network, no epochs, no weights to start from."""
ModelSpec = Annotated[
    Linear
    | LinearSvm
    | Mlp
    | Cnn
    | ResidualCnn
    | Lstm
    | Gru
    | Torchvision
    | Multimodal
    | Ensemble
    | GradientBoosting
    | RbfSvm,
    Field(discriminator="kind"),
    MODEL_SHORT_FORM,
]
WITHOUT_MODEL = "{} is fitted by scikit-learn as a baseline, and only its evaluation is kept"
SKLEARN_KINDS: tuple[str, ...] = tuple(kind.model_fields["kind"].default for kind in get_args(SklearnModel))


def is_sklearn_model(model: ModelSpec) -> bool:
    """Whether scikit-learn fits it."""
    return isinstance(model, SklearnModel)


def smaller_model(model: ModelSpec) -> ModelSpec | None:
    """A far narrower and shallower model of the same kind, all else as usual; None where there is none.

    A quarter of the width, within 8..32 units or 4..16 channels; one hidden layer, recurrent layer or stage, two blocks.
    """
    match model.kind:
        case "mlp" if model.hidden:
            widest = max(model.hidden)
            one = Mlp(hidden=(min(widest, _quarter(widest, 8, 32)),))
            return one if sum(one.hidden) < sum(model.hidden) else None
        case "cnn":
            blocks = Cnn(channels=tuple(_quarter(width, 4, 16) for width in model.channels[:2]), head=model.head)
            return blocks if sum(blocks.channels) < sum(model.channels) else None
        case "residual_cnn":
            stage = ResidualCnn(channels=(_quarter(model.channels[0], 4, 16),))
            return stage if sum(stage.channels) < sum(model.channels) else None
        case "lstm" | "gru":
            kind = Lstm if model.kind == "lstm" else Gru
            width = _quarter(model.hidden, 4, 16)
            return kind(hidden=width, pooling=model.pooling) if width < model.hidden * model.layers else None
        case "torchvision":
            return Cnn(channels=(8, 16))
        case "multimodal":
            image, columns = smaller_model(model.image), smaller_model(model.columns)
            if image is None and columns is None:
                return None
            dense = tuple(min(width, _quarter(width, 8, 32)) for width in model.dense[:1])
            return Multimodal.model_validate(
                {"image": image or model.image, "columns": columns or model.columns, "dense": dense}
            )
        case _:
            return None


def _quarter(width: int, least: int, most: int) -> int:
    return max(least, min(most, width // 4))
