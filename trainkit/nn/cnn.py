"""Plain convolutional networks."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from trainkit.nn.layers import build_activation, build_norm, dense_block, output_head
from trainkit.nn.network import GlobalAverage, Network
from trainkit.spec.models import Cnn


def build_cnn(spec: Cnn, input_shape: tuple[int, int, int], outputs: int) -> Network:
    """Blocks of convolution, norm, activation, 2x2 pooling and dropout; then pooling or flattening; then dense.

    Pooling stops while an image side would fall below 1.
    """
    channels, height, width = input_shape
    body: OrderedDict[str, nn.Module] = OrderedDict()
    for number, wide in enumerate(spec.channels, start=1):
        pools = spec.pool != "none" and min(height, width) >= 2
        body[f"block_{number}"] = _block(spec, channels, wide, pools)
        channels = wide
        if pools:
            height, width = height // 2, width // 2
    if spec.head == "global_average":
        body["pool"] = GlobalAverage()
        features = channels
    else:
        body["flatten"] = nn.Flatten()
        features = channels * height * width
    for number, wide in enumerate(spec.dense, start=1):
        body[f"dense_{number}"] = dense_block(features, wide, spec.activation)
        features = wide
    return Network(nn.Sequential(body), output_head(features, outputs, spec.dropout))


def _block(spec: Cnn, inputs: int, channels: int, pools: bool) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number in range(1, spec.convs_per_block + 1):
        layers[f"conv_{number}"] = nn.Conv2d(
            inputs, channels, spec.kernel, padding=spec.kernel // 2, bias=spec.norm != "batch"
        )
        norm = build_norm(spec.norm, channels, image=True)
        if norm is not None:
            layers[f"norm_{number}"] = norm
        layers[f"activation_{number}"] = build_activation(spec.activation)
        inputs = channels
    if pools:
        layers["pool"] = nn.MaxPool2d(2) if spec.pool == "max" else nn.AvgPool2d(2)
    if spec.spatial_dropout > 0:
        layers["spatial_dropout"] = nn.Dropout2d(spec.spatial_dropout)
    if spec.block_dropout > 0:
        layers["dropout"] = nn.Dropout(spec.block_dropout)
    return nn.Sequential(layers)
