"""From a model spec and the sample's shape to a network with its starting weights."""

from __future__ import annotations

import torch
from torch import nn

from trainkit.nn.cnn import build_cnn
from trainkit.nn.init import initialize_
from trainkit.nn.mlp import build_linear, build_mlp
from trainkit.nn.multimodal import MultimodalBody, build_multimodal
from trainkit.nn.network import Network
from trainkit.nn.residual import build_residual_cnn
from trainkit.nn.rnn import build_recurrent
from trainkit.spec.init import HeNormalInit, InitSpec, XavierUniformInit, ZerosInit
from trainkit.spec.models import Ensemble, ModelSpec, Multimodal, SklearnModel, Torchvision

RELU_LIKE = ("relu", "leaky_relu", "elu", "gelu", "silu", "mish")


def build_model(spec: ModelSpec, input_shape: tuple[int, ...], outputs: int, seed: int, *, columns: int = 0) -> Network:
    """The network with weights drawn from `seed` alone.

    `input_shape` is one sample's: (d,), (C, H, W) or (T, F); `columns` is the number of values that a multimodal model
    reads beside an image. Raises ValueError when the architecture cannot read it.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _architecture(spec, input_shape, outputs, columns)
    _initialize(network, spec, torch.Generator().manual_seed(seed))
    return network


def _initialize(network: Network, spec: ModelSpec, generator: torch.Generator) -> None:
    """Draw the weights by the rule of the model; those of two encoders and their head one after the other."""
    if isinstance(spec, Multimodal):
        body = network.body
        assert isinstance(body, MultimodalBody)
        _initialize(Network(body.image, body.image_top), spec.image, generator)
        _initialize(Network(body.columns, nn.Identity()), spec.columns, generator)
    init = None if isinstance(spec, Multimodal) else starting_weights(spec)
    if init is not None:
        initialize_(network, init, generator)
    elif (head_init := _head_weights(spec)) is not None:
        initialize_(network.head, head_init, generator)


def redraw_head(network: Network, spec: ModelSpec, seed: int) -> None:
    """Draw the head's weights anew by the rule of the model, from `seed` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in network.head.modules():
            if isinstance(layer, nn.Linear):
                layer.reset_parameters()
    init = _head_weights(spec)
    if init is not None:
        initialize_(network.head, init, torch.Generator().manual_seed(seed))


def _head_weights(spec: ModelSpec) -> InitSpec | None:
    """How the head starts: as all weights do; hidden layers on a torchvision body by He."""
    if isinstance(spec, Torchvision) and spec.init is None:
        return HeNormalInit() if spec.dense else None
    return starting_weights(spec)


def _architecture(spec: ModelSpec, shape: tuple[int, ...], outputs: int, columns: int = 0) -> Network:
    match spec.kind:
        case "linear" | "linear_svm":
            return build_linear(shape, outputs)
        case "mlp":
            return build_mlp(spec, shape, outputs)
        case "cnn":
            return build_cnn(spec, _image(spec.kind, shape), outputs)
        case "residual_cnn":
            return build_residual_cnn(spec, _image(spec.kind, shape), outputs)
        case "lstm" | "gru":
            return build_recurrent(spec, _sequence(spec.kind, shape), outputs)
        case "torchvision":
            from trainkit.nn.zoo import build_torchvision  # torchvision takes a second to import

            return build_torchvision(spec, _image(spec.name, shape), outputs)
        case "multimodal":
            if not columns:
                raise ValueError("multimodal reads images and columns, the samples have no columns")
            image = _architecture(spec.image, _image(spec.kind, shape), 1)
            return build_multimodal(spec, image, _architecture(spec.columns, (columns,), 1), outputs)
        case "ensemble":
            raise ValueError("an ensemble has no weights of its own: it is put together from trained models")
        case "gradient_boosting" | "rbf_svm":
            raise ValueError(f"{spec.kind} has no network: scikit-learn fits it")


def starting_weights(spec: ModelSpec) -> InitSpec | None:
    """The spec's init, or the default: He for relu-like activations, Xavier for others, zeros for the (convex) SVM.

    None where the weights stay as the architecture draws them: torchvision's own rules, or pretrained weights that
    are loaded afterwards.
    """
    if isinstance(spec, Ensemble | SklearnModel):
        return None
    if spec.init is not None:
        return None if spec.init.kind == "pretrained" else spec.init
    match spec.kind:
        case "torchvision":
            return None
        case "linear_svm":
            return ZerosInit()
        case "multimodal":  # of the head
            return HeNormalInit() if spec.dense else XavierUniformInit()
        case "mlp" | "cnn" | "residual_cnn":
            return HeNormalInit() if spec.activation in RELU_LIKE else XavierUniformInit()
        case _:
            return XavierUniformInit()


def _image(kind: str, shape: tuple[int, ...]) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise ValueError(f"{kind} reads images (C, H, W), the samples have shape {shape}")
    channels, height, width = shape
    return channels, height, width


def _sequence(kind: str, shape: tuple[int, ...]) -> tuple[int, int]:
    if len(shape) != 2:
        raise ValueError(f"{kind} reads sequences (T, F), the samples have shape {shape}")
    steps, features = shape
    return steps, features
