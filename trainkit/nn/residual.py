"""Residual convolutional networks (He et al. 2016, the form with two 3x3 convolutions)."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from trainkit.nn.layers import build_activation, build_norm, output_head
from trainkit.nn.network import GlobalAverage, Network
from trainkit.spec.models import Activation, Norm, ResidualCnn


class ResidualBlock(nn.Module):
    """y = act(norm(conv(act(norm(conv(x))))) + skip(x)); the skip is a 1x1 convolution where the shape changes."""

    def __init__(
        self, inputs: int, channels: int, stride: int, activation: Activation, norm: Norm, spatial_dropout: float
    ) -> None:
        super().__init__()
        bias = norm != "batch"
        self.conv_1 = nn.Conv2d(inputs, channels, 3, stride, padding=1, bias=bias)
        self.norm_1 = build_norm(norm, channels, image=True) or nn.Identity()
        self.activation_1 = build_activation(activation)
        self.conv_2 = nn.Conv2d(channels, channels, 3, padding=1, bias=bias)
        self.norm_2 = build_norm(norm, channels, image=True) or nn.Identity()
        self.skip: nn.Module = nn.Identity()
        if stride != 1 or inputs != channels:
            self.skip = nn.Sequential(
                OrderedDict(
                    conv=nn.Conv2d(inputs, channels, 1, stride, bias=bias),
                    norm=build_norm(norm, channels, image=True) or nn.Identity(),
                )
            )
        self.activation_2 = build_activation(activation)
        self.spatial_dropout: nn.Module = nn.Dropout2d(spatial_dropout) if spatial_dropout > 0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out = self.activation_1(self.norm_1(self.conv_1(x)))
        out = self.norm_2(self.conv_2(out)) + self.skip(x)
        result: Tensor = self.spatial_dropout(self.activation_2(out))
        return result


def build_residual_cnn(spec: ResidualCnn, input_shape: tuple[int, int, int], outputs: int) -> Network:
    """A stem convolution, then stages of residual blocks; each stage after the first halves the image."""
    inputs, height, width = input_shape
    first = spec.channels[0]
    stem: OrderedDict[str, nn.Module] = OrderedDict(
        conv=nn.Conv2d(inputs, first, 3, padding=1, bias=spec.norm != "batch")
    )
    norm = build_norm(spec.norm, first, image=True)
    if norm is not None:
        stem["norm"] = norm
    stem["activation"] = build_activation(spec.activation)
    body: OrderedDict[str, nn.Module] = OrderedDict(stem=nn.Sequential(stem))
    channels = first
    for stage, wide in enumerate(spec.channels, start=1):
        for number in range(1, spec.blocks_per_stage + 1):
            stride = 2 if stage > 1 and number == 1 else 1
            body[f"stage_{stage}_block_{number}"] = ResidualBlock(
                channels, wide, stride, spec.activation, spec.norm, spec.spatial_dropout
            )
            channels = wide
            if stride == 2:
                height, width = (height + 1) // 2, (width + 1) // 2
    if spec.head == "global_average":
        body["pool"] = GlobalAverage()
        features = channels
    else:
        body["flatten"] = nn.Flatten()
        features = channels * height * width
    return Network(nn.Sequential(body), output_head(features, outputs, spec.dropout))
