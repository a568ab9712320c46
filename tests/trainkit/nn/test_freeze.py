from __future__ import annotations

import pytest
import torch

from trainkit.nn import build_model
from trainkit.nn.network import body_is_frozen, set_trainable
from trainkit.spec.models import Cnn, Torchvision
from trainkit.spec.training import BlockRange


def snapshot(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def moved(module: torch.nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, tensor in module.state_dict().items() if not torch.equal(tensor, before[name])}


def step(network: torch.nn.Module) -> None:
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1)
    network.train()
    network(torch.randn(8, 1, 8, 8)).square().sum().backward()
    optimizer.step()


def test_frozen_body_does_not_move_not_even_its_batch_norm():
    network = build_model(Cnn(channels=(4, 4), spatial_dropout=0.5), (1, 8, 8), 3, seed=0)
    set_trainable(network, "none")
    before = snapshot(network)
    for _ in range(2):
        network.train()
        step(network)
    assert moved(network, before) == {"head.output.weight", "head.output.bias"}
    assert network.training
    assert network.head.training
    assert not network.body.training
    assert body_is_frozen(network)
    x = torch.randn(4, 1, 8, 8)
    assert torch.equal(network.features(x), network.features(x)), "no dropout in a frozen body"


def test_unfreeze_one_opens_the_last_block():
    network = build_model(Cnn(channels=(4, 4)), (1, 8, 8), 3, seed=0)
    assert set_trainable(network, 1) == ["block_2"]
    before = snapshot(network)
    step(network)
    assert {name.rsplit(".", 2)[0] for name in moved(network, before)} == {"body.block_2", "head"}
    assert network.body.block_2.training
    assert not network.body.block_1.training


def test_unfreeze_all_opens_everything():
    network = build_model(Cnn(channels=(4,)), (1, 8, 8), 3, seed=0)
    set_trainable(network, "none")
    set_trainable(network, "all")
    assert all(parameter.requires_grad for parameter in network.parameters())
    network.train()
    assert all(module.training for module in network.modules())


def test_too_many_blocks_are_refused():
    network = build_model(Cnn(channels=(4,)), (1, 8, 8), 3, seed=0)
    with pytest.raises(ValueError, match="2 blocks are asked for, and the body has 1: block_1"):
        set_trainable(network, 2)


def test_stages_of_a_torchvision_model_are_blocks():
    network = build_model(Torchvision(name="resnet18"), (3, 32, 32), 3, seed=0)
    assert set_trainable(network, 2) == ["layer3", "layer4"]
    assert not network.body.backbone.bn1.training
    assert network.body.backbone.layer4[0].bn1.training
    assert not network.body.backbone.bn1.weight.requires_grad


def test_shallow_stages_alone_are_trained_through_frozen_deep_ones():
    network = build_model(Torchvision(name="resnet18"), (3, 32, 32), 3, seed=0)
    opened = set_trainable(network, BlockRange(first=3))
    assert opened == ["conv1", "bn1", "layer1"]
    backbone = network.body.backbone
    assert backbone.bn1.training
    assert backbone.layer1[0].bn1.training
    assert not backbone.layer2[0].bn1.training
    network(torch.rand(2, 3, 32, 32)).sum().backward()
    named = {name.split(".")[0] for name, p in backbone.named_parameters() if p.grad is not None}
    assert named == set(opened)


@pytest.mark.parametrize(("opens", "stem"), [("all", True), (BlockRange(first=1), True), (1, False)])
def test_parameters_beside_the_blocks_go_with_the_first_one(opens, stem):
    network = build_model(Torchvision(name="vit_b_32"), (3, 32, 32), 3, seed=0)
    set_trainable(network, opens)
    assert network.body.backbone.class_token.requires_grad is stem
    assert network.body.backbone.encoder.pos_embedding.requires_grad is stem
    assert network.body.backbone.conv_proj.weight.requires_grad is stem
