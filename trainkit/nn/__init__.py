"""Models: a body of ordered named blocks and a head of linear layers, built from a model spec."""

from trainkit.nn.build import build_model
from trainkit.nn.network import Network, body_blocks

__all__ = ["Network", "body_blocks", "build_model"]
