"""Every update rule against its closed form, written out in float64, and against torch.optim."""

import copy
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from trainkit.fit import checkpoint
from trainkit.optim import build_optimizer
from trainkit.spec.catalog import kinds
from trainkit.spec.optimizers import (
    Adagrad,
    Adam,
    AdamW,
    EmaMomentum,
    HeavyBall,
    LionSpec,
    MuonSpec,
    NAdam,
    Nesterov,
    OptimizerSpec,
    RmsProp,
    Sgd,
)

EVERY: list[OptimizerSpec] = [kind() for kind in kinds(OptimizerSpec)]
RATES = [0.1, 0.1, 0.02, 0.5, 0.3]
Rule = Callable[[Tensor, Tensor, float, dict[str, Tensor], int], Tensor]


def gradients(count: int, shape: tuple[int, ...] = (4, 3)) -> list[Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(count)]


def run(
    spec: OptimizerSpec, grads: list[Tensor], rates: list[float], *, decay: float = 0.0, name: str = "body weights"
) -> Tensor:
    start = torch.linspace(-1, 1, grads[0].numel(), dtype=torch.float64).reshape(grads[0].shape)
    parameter = nn.Parameter(start.clone())
    optimizer = build_optimizer(spec, [{"name": name, "params": [parameter], "weight_decay": decay}])
    for grad, rate in zip(grads, rates, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = rate
        parameter.grad = grad.clone()
        optimizer.step()
        assert [group["lr"] for group in optimizer.param_groups] == [rate] * len(optimizer.param_groups)
    return parameter.detach()


def by_hand(rule: Rule, grads: list[Tensor], rates: list[float], decay: float = 0.0) -> Tensor:
    theta = torch.linspace(-1, 1, grads[0].numel(), dtype=torch.float64).reshape(grads[0].shape)
    memory: dict[str, Tensor] = {name: torch.zeros_like(theta) for name in "mv"}
    for step, (g, eta) in enumerate(zip(grads, rates, strict=True), start=1):
        theta = theta - eta * decay * theta
        theta = theta - eta * rule(theta, g, eta, memory, step)
    return theta


def sgd(theta: Tensor, g: Tensor, eta: float, s: dict[str, Tensor], t: int) -> Tensor:
    return g


def mean_momentum(theta: Tensor, g: Tensor, eta: float, s: dict[str, Tensor], t: int) -> Tensor:
    s["m"] = 0.9 * s["m"] + 0.1 * g
    return s["m"]


def heavy_ball(theta: Tensor, g: Tensor, eta: float, s: dict[str, Tensor], t: int) -> Tensor:
    s["m"] = 0.9 * s["m"] + g
    return s["m"]


def nesterov(theta: Tensor, g: Tensor, eta: float, s: dict[str, Tensor], t: int) -> Tensor:
    s["m"] = 0.9 * s["m"] + g
    return g + 0.9 * s["m"]


def adagrad(theta: Tensor, g: Tensor, eta: float, s: dict[str, Tensor], t: int) -> Tensor:
    s["v"] = s["v"] + g**2
    return g / (s["v"].sqrt() + 1e-7)


def rmsprop(theta: Tensor, g: Tensor, eta: float, s: dict[str, Tensor], t: int) -> Tensor:
    s["v"] = 0.9 * s["v"] + 0.1 * g**2
    return g / (s["v"].sqrt() + 1e-8)


def adam(theta: Tensor, g: Tensor, eta: float, s: dict[str, Tensor], t: int) -> Tensor:
    s["m"] = 0.9 * s["m"] + 0.1 * g
    s["v"] = 0.999 * s["v"] + 0.001 * g**2
    return s["m"] / (1 - 0.9**t) / ((s["v"] / (1 - 0.999**t)).sqrt() + 1e-8)


def nadam(theta: Tensor, g: Tensor, eta: float, s: dict[str, Tensor], t: int) -> Tensor:
    mu = [0.9 * (1 - 0.5 * 0.96 ** (i * 4e-3)) for i in range(1, t + 2)]
    s["m"] = 0.9 * s["m"] + 0.1 * g
    s["v"] = 0.999 * s["v"] + 0.001 * g**2
    ahead = mu[t] * s["m"] / (1 - math.prod(mu)) + (1 - mu[t - 1]) * g / (1 - math.prod(mu[:t]))
    return ahead / ((s["v"] / (1 - 0.999**t)).sqrt() + 1e-8)


def lion(theta: Tensor, g: Tensor, eta: float, s: dict[str, Tensor], t: int) -> Tensor:
    update = (0.9 * s["m"] + 0.1 * g).sign()
    s["m"] = 0.99 * s["m"] + 0.01 * g
    return update


RULES: list[tuple[OptimizerSpec, Rule]] = [
    (Sgd(), sgd),
    (EmaMomentum(), mean_momentum),
    (HeavyBall(), heavy_ball),
    (Nesterov(), nesterov),
    (Adagrad(), adagrad),
    (RmsProp(), rmsprop),
    (Adam(), adam),
    (AdamW(), adam),
    (NAdam(), nadam),
    (LionSpec(), lion),
]


@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize(("spec", "rule"), RULES, ids=lambda value: getattr(value, "kind", ""))
def test_update_is_the_closed_form_under_a_changing_rate(spec, rule, decay):
    grads = gradients(len(RATES))
    tolerance = 1e-6 if spec.kind == "nadam" else 1e-10  # torch keeps NAdam's product of mu in float32
    torch.testing.assert_close(
        run(spec, grads, RATES, decay=decay), by_hand(rule, grads, RATES, decay), rtol=tolerance, atol=tolerance
    )


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_sgd_takes_the_steps_of_torch(momentum, nesterov):
    if nesterov and not momentum:
        return  # refused, as torch refuses it
    grads = gradients(len(RATES))
    parameter = nn.Parameter(torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(4, 3))
    reference = torch.optim.SGD([parameter], 0.1, momentum=momentum, nesterov=nesterov)
    for count, (grad, rate) in enumerate(zip(grads, RATES, strict=True), start=1):
        reference.param_groups[0]["lr"] = rate
        parameter.grad = grad.clone()
        reference.step()
        ours = run(Sgd(momentum=momentum, nesterov=nesterov), grads[:count], RATES[:count])
        torch.testing.assert_close(ours, parameter.detach(), rtol=1e-12, atol=1e-12)


def test_ema_momentum_is_sgd_with_momentum_at_a_tenth_of_the_rate():
    grads = gradients(len(RATES))
    tenths = [rate / 10 for rate in RATES]
    torch.testing.assert_close(run(EmaMomentum(), grads, RATES), run(Sgd(momentum=0.9), grads, tenths))


def test_every_optimizer_but_muon_has_a_closed_form():
    assert {type(spec) for spec, _ in RULES} == set(kinds(OptimizerSpec)) - {MuonSpec}


def test_decay_is_decoupled_and_not_the_coupled_one_of_torch():
    grads = gradients(3)
    start = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(4, 3)
    parameter = nn.Parameter(start.clone())
    coupled = torch.optim.RMSprop([parameter], 0.1, alpha=0.9, weight_decay=0.3)
    for grad in grads:
        parameter.grad = grad.clone()
        coupled.step()
    assert not torch.allclose(run(RmsProp(), grads, [0.1] * 3, decay=0.3), parameter.detach())


def test_momentum_is_not_what_dampening_gives():
    grads = gradients(3)
    parameter = nn.Parameter(torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(4, 3))
    damped = torch.optim.SGD([parameter], 0.1, momentum=0.9, dampening=0.9)
    for grad in grads:
        parameter.grad = grad.clone()
        damped.step()
    assert not torch.allclose(run(EmaMomentum(), grads, [0.1] * 3), parameter.detach())


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))


def groups_of(model: nn.Module) -> list[dict[str, object]]:
    weights = [p for p in model.parameters() if p.ndim >= 2]
    rest = [p for p in model.parameters() if p.ndim < 2]
    return [
        {"name": "body weights", "params": weights, "weight_decay": 0.01},
        {"name": "body rest", "params": rest, "weight_decay": 0.0, "lr": 0.005},
    ]


def train(model: nn.Module, optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
    for step in range(first, last):
        generator = torch.Generator().manual_seed(step)
        x, y = torch.randn(8, 1, 4, 4, generator=generator), torch.randint(3, (8,), generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()


@pytest.mark.parametrize("spec", EVERY, ids=lambda spec: spec.kind)
def test_resumed_equals_uninterrupted_bit_by_bit_through_a_checkpoint_file(spec, tmp_path: Path):
    whole = network()
    train(whole, build_optimizer(spec, groups_of(whole)), 0, 6)
    first = network()
    optimizer = build_optimizer(spec, groups_of(first))
    train(first, optimizer, 0, 3)
    saved = {"network": first.state_dict(), "optimizer": optimizer.state_dict()}
    checkpoint.save(tmp_path / "step.safetensors", saved)
    state = checkpoint.load(tmp_path / "step.safetensors")
    second = network()
    second.load_state_dict(state["network"])
    resumed = build_optimizer(spec, groups_of(second))
    resumed.load_state_dict(state["optimizer"])
    train(second, resumed, 3, 6)
    for value, uninterrupted in zip(second.state_dict().values(), whole.state_dict().values(), strict=True):
        assert torch.equal(value, uninterrupted)


@pytest.mark.parametrize("spec", EVERY, ids=lambda spec: spec.kind)
def test_groups_keep_their_own_rate_and_undecayed_groups_ignore_decay(spec):
    model = network()
    optimizer = build_optimizer(spec, groups_of(model))
    assert optimizer.param_groups[0]["lr"] == spec.lr
    assert optimizer.param_groups[-1]["lr"] == 0.005
    before = copy.deepcopy(model.state_dict())
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    after = model.state_dict()
    torch.testing.assert_close(after["4.weight"], before["4.weight"] * (1 - spec.lr * 0.01))
    assert torch.equal(after["4.bias"], before["4.bias"])


@pytest.mark.parametrize("spec", EVERY, ids=lambda spec: spec.kind)
def test_parameters_without_a_gradient_do_not_move(spec):
    model = network()
    optimizer = build_optimizer(spec, groups_of(model))
    before = copy.deepcopy(model.state_dict())
    model[4].weight.grad = torch.ones_like(model[4].weight)
    optimizer.step()
    assert torch.equal(model.state_dict()["0.weight"], before["0.weight"])
    assert not torch.equal(model.state_dict()["4.weight"], before["4.weight"])


def test_a_state_from_another_device_does_not_choose_the_kernels():
    model = network()
    optimizer = build_optimizer(Adam(), groups_of(model))
    state = optimizer.state_dict()
    for group in state["param_groups"]:
        group["fused"] = False
    optimizer.load_state_dict(state)
    assert all(group["fused"] for group in optimizer.param_groups)


def test_build_optimizer_refuses_no_parameters():
    with pytest.raises(ValueError, match="no parameter is trainable"):
        build_optimizer(Sgd(), [])
