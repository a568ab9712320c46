from __future__ import annotations

import pytest
import torch

from trainkit.nn import build_model
from trainkit.nn.network import body_is_frozen, set_trainable
from trainkit.spec.models import Cnn, Torchvision


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
    assert set_trainable(network, 1) == ["body.block_2"]
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
    with pytest.raises(ValueError, match="cannot unfreeze 2 blocks: the body has 1"):
        set_trainable(network, 2)


def test_stages_of_a_torchvision_model_are_blocks():
    network = build_model(Torchvision(name="resnet18"), (3, 32, 32), 3, seed=0)
    assert set_trainable(network, 2) == ["body.backbone.layer3", "body.backbone.layer4"]
    assert not network.body.backbone.bn1.training
    assert network.body.backbone.layer4[0].bn1.training
    assert not network.body.backbone.bn1.weight.requires_grad
