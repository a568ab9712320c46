from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from trainkit.nn import build_model
from trainkit.nn.network import body_blocks
from trainkit.nn.zoo import target_size
from trainkit.spec.models import TORCHVISION_CLASSIFIERS, Torchvision

SMALL = ["squeezenet1_1", "shufflenet_v2_x0_5", "mobilenet_v3_small", "mnasnet0_5", "resnet18"]


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 40)])
def test_grey_and_colour_of_any_size(name, shape):
    network = build_model(Torchvision(name=name), shape, 4, seed=0).eval()
    with torch.inference_mode():
        assert network(torch.rand(2, *shape)).shape == (2, 4)
    assert not any(isinstance(m, nn.AdaptiveAvgPool2d) and m.output_size == (1, 1) for m in network.modules())
    assert len(body_blocks(network)) >= 2


def test_it_computes_what_torchvision_computes():
    network = build_model(Torchvision(name="resnet18"), (3, 32, 32), 1000, seed=0).eval()
    reference = torchvision.models.resnet18(weights=None).eval()
    own = network.body.backbone.state_dict() | {
        "fc.weight": network.head.output.weight,
        "fc.bias": network.head.output.bias,
    }
    reference.load_state_dict(own)
    x = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(network(x), reference(x), rtol=1e-4, atol=1e-4)


def test_grey_is_repeated_and_small_images_are_resized():
    network = build_model(Torchvision(name="squeezenet1_1", image_size=48), (1, 28, 28), 3, seed=0).eval()
    seen = []
    network.body.backbone.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    network(torch.rand(1, 1, 28, 28))
    assert seen[0].shape == (1, 3, 48, 48)
    assert torch.equal(seen[0][:, 0], seen[0][:, 2])


@pytest.mark.parametrize(
    ("name", "image_size", "size", "wanted"),
    [
        ("resnet18", None, (28, 20), (28, 20)),
        ("vgg11", None, (28, 28), (32, 32)),
        ("vgg11", None, (16, 32), (32, 64)),
        ("inception_v3", None, (64, 64), (75, 75)),
        ("vit_b_16", None, (28, 20), (32, 32)),
        ("vit_b_16", 224, (28, 28), (224, 224)),
        ("maxvit_t", None, (32, 32), (224, 224)),
        ("resnet18", 64, (28, 20), (64, 64)),
    ],
)
def test_sizes(name, image_size, size, wanted):
    assert target_size(Torchvision(name=name, image_size=image_size), *size) == wanted


def test_dropout_is_overridden():
    network = build_model(Torchvision(name="mobilenet_v3_small", dropout=0.05), (3, 32, 32), 3, seed=0)
    assert {m.p for m in network.modules() if isinstance(m, nn.Dropout)} == {0.05}


def test_other_channel_counts_are_refused():
    with pytest.raises(ValueError, match="4 channels"):
        build_model(Torchvision(name="resnet18"), (4, 32, 32), 3, seed=0)


def test_every_listed_name_exists_in_torchvision():
    assert list(TORCHVISION_CLASSIFIERS) == torchvision.models.list_models(module=torchvision.models)
