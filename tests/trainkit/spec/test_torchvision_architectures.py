"""The tables of torchvision's architectures against torchvision itself, built without memory on the meta device."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torchvision
from pydantic import TypeAdapter
from torchvision.models import regnet

from trainkit.nn.build import build_model
from trainkit.nn.network import Network, block_names, head_width
from trainkit.nn.zoo import build_torchvision
from trainkit.spec.models import ModelSpec, Torchvision, body_block_names
from trainkit.spec.torchvision_architectures import TORCHVISION_CLASSIFIERS, TORCHVISION_SIZES


@pytest.fixture
def meta(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tensors have shapes alone; RegNet computes its widths with real ones."""
    computed = regnet.BlockParams.from_init_params.__func__

    def on_the_cpu(cls, *args, **options):
        with torch.device("cpu"):
            return computed(cls, *args, **options)

    monkeypatch.setattr(regnet.BlockParams, "from_init_params", classmethod(on_the_cpu))
    with torch.device("meta"):
        yield


def parameters(network: Network) -> int:
    return sum(parameter.numel() for parameter in network.body.parameters())


@pytest.mark.parametrize("name", TORCHVISION_CLASSIFIERS)
def test_sizes_and_blocks_are_those_of_the_built_networks(name: str, meta: None) -> None:
    size = TORCHVISION_SIZES[name]
    spec = Torchvision(name=name)
    network = build_torchvision(spec, (3, 224, 224), 1)
    assert (parameters(network), head_width(network)) == (size.parameters, size.width)
    assert tuple(block_names(network)) == body_block_names(spec)
    without = Torchvision(name=name, include_top=False)
    network = build_torchvision(without, (3, 224, 224), 1)
    assert (parameters(network), head_width(network)) == (size.body_parameters, size.channels)
    assert tuple(block_names(network)) == body_block_names(without)


def test_parameters_with_1000_classes_are_those_that_torchvision_states() -> None:
    auxiliary = sum(p.numel() for p in torchvision.models.inception.InceptionAux(768, 1000).parameters())
    for name, size in TORCHVISION_SIZES.items():
        weights = list(torchvision.models.get_model_weights(name))
        of_224 = [one for one in weights if one.transforms().crop_size == [224]]
        stated = (of_224 or weights)[0].meta["num_params"]
        bias = 0 if name == "maxvit_t" else 1000  # MaxViT's last layer has none in torchvision
        not_built = auxiliary if name == "inception_v3" else 0
        assert size.parameters + 1000 * size.width + bias == stated - not_built, name


@pytest.mark.parametrize(
    ("document", "shape"),
    [
        ({"kind": "mlp", "hidden": [8, 4]}, (5,)),
        ({"kind": "linear"}, (5,)),
        ({"kind": "cnn", "channels": [4, 6], "dense": [5]}, (1, 8, 8)),
        ({"kind": "residual_cnn", "channels": [4, 6], "blocks_per_stage": 2}, (1, 8, 8)),
        ({"kind": "lstm", "layers": 2, "bidirectional": True}, (7, 3)),
        ({"kind": "gru"}, (7, 3)),
    ],
)
def test_blocks_of_the_services_own_models(document: dict[str, object], shape: tuple[int, ...]) -> None:
    spec = TypeAdapter(ModelSpec).validate_python(document)
    assert tuple(block_names(build_model(spec, shape, 3, seed=0))) == body_block_names(spec)
