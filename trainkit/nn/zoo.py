"""torchvision's classifiers by name, without weights: sized, resizing and split into body and head."""

from __future__ import annotations

import warnings

import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from trainkit.nn.layers import output_head
from trainkit.nn.network import GlobalAverage, Network
from trainkit.spec.models import Torchvision

SMALLEST_SIDE = {
    "alexnet": 63,
    "convnext": 32,
    "densenet": 32,
    "googlenet": 16,
    "inception": 75,
    "squeezenet": 24,
    "vgg": 32,
}
"""Least image side that an architecture's strides leave something of, by name prefix; 8 for all others."""
SIDE_MULTIPLE = {"vit_b_16": 16, "vit_b_32": 32, "vit_l_16": 16, "vit_l_32": 32, "vit_h_14": 14, "maxvit_t": 224}
"""Architectures that cut the image into patches take square images whose side is a multiple of this."""


class ZooBody(nn.Module):
    """Images (B, 1 or 3, H, W) -> features (B, width): grey becomes RGB, resize, then the architecture."""

    def __init__(self, backbone: nn.Module, size: tuple[int, int] | None, shrinks: bool) -> None:
        super().__init__()
        self.backbone = backbone
        self.size = size
        self.shrinks = shrinks

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] == 1:
            x = x.expand(-1, 3, -1, -1)
        if self.size is not None:
            # Antialiasing only matters where pixels are merged; without it shrinking drops pixels (aliasing).
            x = F.interpolate(x, self.size, mode="bilinear", align_corners=False, antialias=self.shrinks)
        features: Tensor = self.backbone(x)
        return features


def build_torchvision(spec: Torchvision, input_shape: tuple[int, int, int], outputs: int) -> Network:
    """The named architecture with random weights. Raises ValueError for images of 2 or more than 3 channels."""
    channels, height, width = input_shape
    if channels not in (1, 3):
        raise ValueError(f"{spec.name} takes grey or RGB images, these have {channels} channels")
    size = target_size(spec, height, width)
    options: dict[str, object] = {}
    if spec.name.startswith("vit"):
        options["image_size"] = size[0]
    if spec.name == "maxvit_t":
        options["input_size"] = size
    if spec.name in ("googlenet", "inception_v3"):
        options.update(aux_logits=False, init_weights=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchvision's notices about slow scipy inits
        backbone = torchvision.models.get_model(spec.name, weights=None, **options)
    features = _take_head(backbone)
    for module in list(backbone.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.AdaptiveAvgPool2d) and child.output_size in (1, (1, 1)):
                setattr(module, name, GlobalAverage(keepdim=True))
            if spec.dropout is not None and isinstance(child, nn.Dropout):
                child.p = spec.dropout
    resize = size if size != (height, width) else None
    body = ZooBody(backbone, resize, shrinks=size[0] < height or size[1] < width)
    return Network(body, output_head(features, outputs))


def target_size(spec: Torchvision, height: int, width: int) -> tuple[int, int]:
    """(H, W) that the architecture sees: the spec's side, the image's own, or the least the architecture takes."""
    multiple = SIDE_MULTIPLE.get(spec.name)
    if multiple is not None:
        side = spec.image_size or max(height, width)
        return (-(-side // multiple) * multiple,) * 2
    if spec.image_size is not None:
        return spec.image_size, spec.image_size
    least = next((side for prefix, side in SMALLEST_SIDE.items() if spec.name.startswith(prefix)), 8)
    if min(height, width) >= least:
        return height, width
    scale = least / min(height, width)
    return max(least, round(height * scale)), max(least, round(width * scale))


def _take_head(backbone: nn.Module) -> int:
    """Replace the architecture's last layer by the identity and return the width it read."""
    layers = [(name, layer) for name, layer in backbone.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    name, last = layers[-1]
    if isinstance(last, nn.Conv2d):
        # SqueezeNet ends in a 1x1 convolution, relu and pooling; pooling first makes it a linear layer on the features.
        backbone.classifier = nn.Sequential(nn.Dropout(0.5), GlobalAverage(keepdim=True))
        return last.in_channels
    parent, _, leaf = name.rpartition(".")
    setattr(backbone.get_submodule(parent), leaf, nn.Identity())
    return last.in_features
