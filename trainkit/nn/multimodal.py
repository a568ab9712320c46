"""Networks of two inputs: an encoder for images, one for columns, and a head that reads the features of both."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from trainkit.nn.layers import build_head
from trainkit.nn.network import Network, head_width
from trainkit.spec.models import Multimodal


class MultimodalBody(nn.Module):
    """Images (B, C, H, W) and columns (B, d) -> [image features, column features] (B, width)."""

    def __init__(self, image: Network, columns: Network) -> None:
        super().__init__()
        self.image = image.body
        self.image_top = _without_output(image.head)
        """What the image model has between its body and its output layer: dropout, and the `dense` of torchvision's."""
        self.columns = columns.body

    def forward(self, x: Tensor, columns: Tensor) -> Tensor:
        return torch.cat([self.image_top(self.image(x)), self.columns(columns)], dim=1)


def build_multimodal(spec: Multimodal, image: Network, columns: Network, outputs: int) -> Network:
    """Join two networks, whose output layers are left out, under a new head."""
    body = MultimodalBody(image, columns)
    hidden = getattr(spec.image, "dense", ()) if spec.image.kind == "torchvision" else ()
    width = (hidden[-1] if hidden else head_width(image)) + head_width(columns)
    return Network(body, build_head(width, spec.dense, outputs, spec.dropout))


def _without_output(head: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict((name, layer) for name, layer in head.named_children() if name != "output"))
