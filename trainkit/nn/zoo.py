"""torchvision's classifiers by name, without weights: sized, resizing and split into body and head."""

from __future__ import annotations

import warnings
from collections import OrderedDict

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from trainkit.nn.layers import build_head
from trainkit.nn.network import GlobalAverage, Network
from trainkit.spec.models import Torchvision
from trainkit.spec.torchvision_architectures import target_size

BODIES: dict[str, tuple[str, ...]] = {
    "densenet": ("features", "relu"),
    "googlenet": (
        *("conv1", "maxpool1", "conv2", "conv3", "maxpool2", "inception3a", "inception3b", "maxpool3", "inception4a"),
        *("inception4b", "inception4c", "inception4d", "inception4e", "maxpool4", "inception5a", "inception5b"),
    ),
    "inception": (
        *("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "maxpool1", "Conv2d_3b_1x1", "Conv2d_4a_3x3", "maxpool2"),
        *("Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"),
        *("Mixed_7a", "Mixed_7b", "Mixed_7c"),
    ),
    "maxvit": ("stem", "blocks"),
    "mnasnet": ("layers",),
    "regnet": ("stem", "trunk_output"),
    "resne": ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"),
    "shufflenet": ("conv1", "maxpool", "stage2", "stage3", "stage4", "conv5"),
    "swin": ("features", "norm", "permute"),
    "wide_resnet": ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"),
}
"""Modules of an architecture before its pooling and dense layers, in order, by name prefix; others: `features` alone."""


class ZooBody(nn.Module):
    """Images (B, 1 or 3, H, W) -> features (B, width): grey becomes RGB, resize, the architecture, pooling if any."""

    def __init__(
        self, backbone: nn.Module, size: tuple[int, int] | None, shrinks: bool, pool: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.size = size
        self.shrinks = shrinks
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] == 1:
            x = x.expand(-1, 3, -1, -1)
        if self.size is not None:
            # Antialiasing only matters where pixels are merged; without it shrinking drops pixels (aliasing).
            x = F.interpolate(x, self.size, mode="bilinear", align_corners=False, antialias=self.shrinks)
        features: Tensor = self.backbone(x)
        return features if self.pool is None else self.pool(features)


class PatchTokens(nn.Module):
    """A vision transformer's last layer as maps: images (B, 3, H, W) -> (B, D, rows, columns) of patches.

    The class token takes part in the attention and is left out of the maps. Weights keep torchvision's names.
    """

    def __init__(self, transformer: torchvision.models.VisionTransformer) -> None:
        super().__init__()
        self.class_token = transformer.class_token
        self.conv_proj = transformer.conv_proj
        self.encoder = transformer.encoder

    def forward(self, x: Tensor) -> Tensor:
        patches: Tensor = self.conv_proj(x)
        tokens = patches.flatten(2).transpose(1, 2)
        # shape[0] and not len(x): in a traced graph the batch stays a variable
        encoded: Tensor = self.encoder(torch.cat([self.class_token.expand(x.shape[0], -1, -1), tokens], dim=1))
        return encoded[:, 1:].transpose(1, 2).reshape(patches.shape)


class UnversionedMnasNet(torchvision.models.MNASNet):  # type: ignore[misc]  # torchvision has no types
    """MNASNet that loads any state dict: torchvision's own refuses one that does not tell its format version."""

    _load_from_state_dict = nn.Module._load_from_state_dict


def build_torchvision(spec: Torchvision, input_shape: tuple[int, int, int], outputs: int) -> Network:
    """The named architecture with random weights, with its top or without it.

    Raises ValueError for images of 2 or more than 3 channels.
    """
    channels, height, width = input_shape
    if channels not in (1, 3):
        raise ValueError(f"{spec.name} takes grey or RGB images, these have {channels} channels")
    size = target_size(spec.name, spec.image_size, height, width)
    backbone = _architecture(spec.name, size)
    pool: nn.Module | None = None
    if spec.include_top or (spec.name.startswith("vit") and spec.head is None):
        features = _take_head(backbone)
    else:
        backbone, pool = without_top(spec.name, backbone), nn.Flatten() if spec.head == "flatten" else GlobalAverage()
        features = _width(backbone, pool, size)
    for module in list(backbone.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.AdaptiveAvgPool2d) and child.output_size in (1, (1, 1)):
                setattr(module, name, GlobalAverage(keepdim=True))
            if spec.dropout is not None and isinstance(child, nn.Dropout):
                child.p = spec.dropout
    resize = size if size != (height, width) else None
    body = ZooBody(backbone, resize, shrinks=size[0] < height or size[1] < width, pool=pool)
    dropout = 0.0 if spec.include_top else spec.dropout or 0.0
    return Network(body, build_head(features, spec.dense, outputs, dropout))


def without_top(name: str, backbone: nn.Module) -> nn.Module:
    """Everything before the architecture's pooling and dense layers: images -> maps (B, C, h, w), torchvision's names."""
    if isinstance(backbone, torchvision.models.VisionTransformer):
        return PatchTokens(backbone)
    names = next((names for prefix, names in BODIES.items() if name.startswith(prefix)), ("features",))
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    for part in names:
        # DenseNet's last relu is a function and MaxVit's blocks are a list in torchvision.
        found = getattr(backbone, part, None) or nn.ReLU(inplace=True)
        parts[part] = nn.Sequential(*found) if isinstance(found, nn.ModuleList) else found
    return nn.Sequential(parts)


def _architecture(name: str, size: tuple[int, int]) -> nn.Module:
    options: dict[str, object] = {}
    if name.startswith("vit"):
        options["image_size"] = size[0]
    if name == "maxvit_t":
        options["input_size"] = size
    if name in ("googlenet", "inception_v3"):
        options.update(aux_logits=False, init_weights=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchvision's notices about slow scipy inits
        backbone: nn.Module = torchvision.models.get_model(name, weights=None, **options)
    if isinstance(backbone, torchvision.models.MNASNet):
        backbone.__class__ = UnversionedMnasNet
    return backbone


def _width(backbone: nn.Module, pool: nn.Module, size: tuple[int, int]) -> int:
    """Width of the pooled features, told by shapes alone: on the meta device nothing is computed."""
    shapes = {name: tensor.to("meta") for name, tensor in backbone.state_dict().items()}
    backbone.eval()
    with torch.no_grad():
        maps = torch.func.functional_call(backbone, shapes, torch.empty(1, 3, *size, device="meta"))
    backbone.train()
    return int(pool(maps).shape[1])


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
