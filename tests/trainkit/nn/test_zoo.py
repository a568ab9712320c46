from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

from trainkit.nn import build_model
from trainkit.nn.network import body_blocks, count_parameters, set_trainable
from trainkit.spec import JobSpec
from trainkit.spec.models import Torchvision
from trainkit.spec.torchvision_architectures import TORCHVISION_CLASSIFIERS, target_size

SMALL = ["squeezenet1_1", "shufflenet_v2_x0_5", "mobilenet_v3_small", "mnasnet0_5", "resnet18"]


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 40)])
def test_grey_and_colour_of_any_size(name, shape):
    network = build_model(Torchvision(name=name), shape, 4, seed=0).eval()
    with torch.inference_mode():
        assert network(torch.rand(2, *shape)).shape == (2, 4)
    assert not any(isinstance(m, nn.AdaptiveAvgPool2d) and m.output_size == (1, 1) for m in network.modules())
    assert len(body_blocks(network)) >= 2


@pytest.mark.parametrize("name", SMALL)
def test_weights_load_from_a_plain_dictionary(name):
    """As they are kept of the best epoch: without torch's format versions, which MNASNet asks for."""
    network, other = (build_model(Torchvision(name=name), (3, 32, 32), 4, seed=seed) for seed in (0, 1))
    other.load_state_dict({tensor_name: tensor.clone() for tensor_name, tensor in network.state_dict().items()})
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), other.parameters(), strict=True))


def test_it_computes_what_torchvision_computes():
    network = build_model(Torchvision(name="resnet18"), (3, 32, 32), 1000, seed=0).eval()
    reference = torchvision.models.resnet18(weights=None).eval()
    state = network.body.backbone.state_dict() | {
        "fc.weight": network.head.output.weight,
        "fc.bias": network.head.output.bias,
    }
    reference.load_state_dict(state)
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
    ("name", "image_size", "size", "expected"),
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
def test_sizes(name, image_size, size, expected):
    assert target_size(name, image_size, *size) == expected


def test_dropout_is_overridden():
    network = build_model(Torchvision(name="mobilenet_v3_small", dropout=0.05), (3, 32, 32), 3, seed=0)
    assert {m.p for m in network.modules() if isinstance(m, nn.Dropout)} == {0.05}


def test_other_channel_counts_are_refused():
    with pytest.raises(ValueError, match="4 channels"):
        build_model(Torchvision(name="resnet18"), (4, 32, 32), 3, seed=0)


def test_every_listed_name_exists_in_torchvision():
    assert list(TORCHVISION_CLASSIFIERS) == torchvision.models.list_models(module=torchvision.models)


LAST_OF_BODY = {
    "alexnet": "features",
    "convnext_tiny": "features",
    "densenet121": "relu",
    "efficientnet_b0": "features",
    "efficientnet_v2_s": "features",
    "googlenet": "inception5b",
    "inception_v3": "Mixed_7c",
    "maxvit_t": "blocks.3",
    "mnasnet0_5": "layers",
    "mobilenet_v2": "features",
    "mobilenet_v3_small": "features",
    "regnet_x_400mf": "trunk_output",
    "regnet_y_400mf": "trunk_output",
    "resnet18": "layer4",
    "resnext50_32x4d": "layer4",
    "shufflenet_v2_x0_5": "conv5",
    "squeezenet1_1": "features",
    "swin_t": "permute",
    "swin_v2_t": "permute",
    "vgg11_bn": "features",
    "vit_b_32": "encoder",
    "wide_resnet50_2": "layer4",
}
"""One architecture or more of each family, with torchvision's name of the last module before pooling and dense layers."""


def test_every_family_of_torchvision_is_in_the_table():
    families = {
        name: torchvision.models.get_model_builder(name).__module__
        for name in torchvision.models.list_models(torchvision.models)
    }
    assert {families[name] for name in LAST_OF_BODY} == set(families.values())


def image_size_of(name: str) -> dict[str, int]:
    """What the architecture must know of the image beforehand."""
    return {"vit_b_32": {"image_size": 64}, "maxvit_t": {"input_size": (224, 224)}}.get(name, {})


@pytest.mark.parametrize("name", LAST_OF_BODY)
def test_a_body_without_its_top_is_torchvision_s_layer_by_layer(name):
    """Cut out of torchvision's own graph, pooled and followed by two dense layers by hand; same weights, same outputs."""
    document = {"kind": "torchvision", "name": name, "include_top": False, "head": "global_average", "dense": [10]}
    side = {"maxvit_t": 224, "inception_v3": 75}.get(name, 64)
    network = build_model(Torchvision.model_validate(document), (3, side, side), 4, seed=0).eval()
    network.body.pool.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    reference = torchvision.models.get_model(name, weights=None, **image_size_of(name)).eval()
    ours = network.body.backbone.state_dict()
    assert set(ours) <= set(reference.state_dict()), "the weights keep torchvision's names"
    for tensor_name, tensor in reference.state_dict().items():
        if tensor_name in ours:
            tensor.copy_(ours[tensor_name])
    cut = create_feature_extractor(reference, {LAST_OF_BODY[name]: "maps"})
    (hidden, _), output = network.head.hidden_1, network.head.output
    seen: list[torch.Tensor] = []
    x = torch.rand(2, 3, side, side)
    with torch.inference_mode():
        outputs, maps = network(x), cut(x)["maps"]
        if name.startswith("vit"):  # (B, class token and patches, D)
            maps = maps[:, 1:].transpose(1, 2).unflatten(2, (2, 2))
        torch.testing.assert_close(seen[0], maps, rtol=1e-6, atol=1e-6)
        pooled = nn.AdaptiveAvgPool2d(1)(maps).flatten(1)
        by_hand = nn.functional.linear(pooled, hidden.weight, hidden.bias).clamp(min=0) @ output.weight.T + output.bias
        torch.testing.assert_close(outputs, by_hand, rtol=1e-5, atol=1e-6)


def test_vgg16_with_global_average_pooling_dense_1024_and_softmax():
    """The classic of transfer learning courses, written as a spec and built by hand, layer by layer."""
    document = {
        "dataset": "photos",
        "model": {"kind": "torchvision", "name": "vgg16", "include_top": False, "dense": [1024]},
        "start_from": {"file": "vgg16.safetensors", "freeze": "body"},
    }
    spec = JobSpec.model_validate(document).model
    network = build_model(spec, (3, 32, 32), 5, seed=0).eval()
    layers: list[nn.Module] = []
    width = 3
    for channels in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0):
        if channels:
            layers += [nn.Conv2d(width, channels, 3, padding=1), nn.ReLU()]
            width = channels
        else:
            layers.append(nn.MaxPool2d(2))
    layers += [
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(512, 1024),
        nn.ReLU(),
        nn.Linear(1024, 5),
        nn.Softmax(1),
    ]
    by_hand = nn.Sequential(*layers).eval()
    assert [tensor.shape for tensor in by_hand.parameters()] == [tensor.shape for tensor in network.parameters()]
    for ours, reference in zip(network.parameters(), by_hand.parameters(), strict=True):
        reference.data.copy_(ours)
    x = torch.rand(3, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(network(x).softmax(1), by_hand(x), rtol=1e-6, atol=1e-6)
    assert network.head.hidden_1.linear.weight.std().item() == pytest.approx((2 / 512) ** 0.5, rel=0.02), "He"
    assert set_trainable(network, "none") == []
    assert count_parameters(network)[1] == 512 * 1024 + 1024 + 1024 * 5 + 5


@pytest.mark.parametrize(("name", "width"), [("squeezenet1_1", 512 * 3 * 3), ("vit_b_32", 768 * 2 * 2)])
def test_flatten_keeps_every_position(name, width):
    spec = Torchvision(name=name, include_top=False, head="flatten")
    network = build_model(spec, (3, 64, 64), 3, seed=0).eval()
    assert network.features(torch.rand(2, 3, 64, 64)).shape == (2, width)
    assert network.head.output.in_features == width


def test_a_vision_transformer_without_top_gives_its_class_token():
    topless = build_model(Torchvision(name="vit_b_32", include_top=False), (3, 64, 64), 3, seed=0).eval()
    whole = build_model(Torchvision(name="vit_b_32"), (3, 64, 64), 3, seed=0).eval()
    x = torch.rand(2, 3, 64, 64)
    assert torch.equal(topless.features(x), whole.features(x))


def test_pooling_is_chosen_without_the_top_alone():
    with pytest.raises(ValueError, match="include_top: false"):
        Torchvision(name="vgg16", head="flatten")
    network = build_model(Torchvision(name="squeezenet1_1", include_top=False, dropout=0.3), (3, 32, 32), 3, seed=0)
    assert network.head.dropout.p == 0.3


def test_patch_maps_follow_the_batch_when_they_are_traced():
    """ONNX files are traced: a batch size that is a constant in them would be the only one that they take."""
    spec = Torchvision(name="vit_b_32", include_top=False, head="global_average")
    network = build_model(spec, (3, 64, 64), 3, seed=0).eval()
    with torch.inference_mode():
        traced = torch.jit.trace(network, torch.rand(2, 3, 64, 64))
        x = torch.rand(3, 3, 64, 64)
        torch.testing.assert_close(traced(x), network(x))
