import pytest
import torch
from torch import Tensor, nn

from trainkit.optim import build_optimizer
from trainkit.optim.muon import orthogonalise
from trainkit.spec.optimizers import MuonSpec


def stepped(
    optimizers: list[torch.optim.Optimizer], params: dict[str, nn.Parameter], count: int = 4
) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)
    for _ in range(count):
        for parameter in params.values():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        for optimizer in optimizers:
            optimizer.step()
    return {name: parameter.detach() for name, parameter in params.items()}


def parameters() -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(1)
    shapes = {"tall": (8, 3), "wide": (3, 8), "bias": (8,), "output": (2, 8)}
    return {name: nn.Parameter(torch.randn(shape, generator=generator)) for name, shape in shapes.items()}


def test_equals_torch_muon_on_hidden_matrices_and_adamw_on_the_rest():
    weights = parameters()
    groups = [
        {"name": "body weights", "params": [weights["tall"], weights["wide"]], "weight_decay": 0.1},
        {"name": "body rest", "params": [weights["bias"]], "weight_decay": 0.0},
        {"name": "head weights", "params": [weights["output"]], "weight_decay": 0.1},
    ]
    got = stepped([build_optimizer(MuonSpec(lr=0.02, adam_lr=3e-3), groups)], weights)
    reference = parameters()
    muon = torch.optim.Muon([reference["tall"], reference["wide"]], lr=0.02, weight_decay=0.1)
    rest = [
        {"params": [reference["bias"]], "weight_decay": 0.0},
        {"params": [reference["output"]], "weight_decay": 0.1},
    ]
    expected = stepped([muon, torch.optim.AdamW(rest, lr=3e-3, fused=True)], reference)
    for name in got:
        assert torch.equal(got[name], expected[name]), name


def test_a_kernel_is_the_matrix_of_its_flattened_filters():
    generator = torch.Generator().manual_seed(1)
    start = torch.randn(4, 2, 3, 3, generator=generator)
    kernel, matrix = nn.Parameter(start.clone()), nn.Parameter(start.reshape(4, 18).clone())
    channels_last = nn.Parameter(start.clone(memory_format=torch.channels_last))
    results = []
    for parameter in (kernel, matrix, channels_last):
        optimizer = build_optimizer(MuonSpec(), [{"name": "body weights", "params": [parameter]}])
        gradient = torch.randn(4, 18, generator=torch.Generator().manual_seed(9)).reshape(parameter.shape)
        parameter.grad = gradient.contiguous()
        optimizer.step()
        results.append(parameter.detach().reshape(4, 18))
    assert torch.equal(results[0], results[1])
    torch.testing.assert_close(results[0], results[2])


@pytest.mark.parametrize("shape", [(16, 5), (5, 16), (8, 8)])
def test_orthogonalise_brings_singular_values_near_one_and_keeps_directions(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalise(matrix).double())
    assert values.max() < 1.3
    assert values.min() > 0.5
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    assert torch.nn.functional.cosine_similarity((u @ vh).flatten(), orthogonalise(matrix).flatten(), dim=0) > 0.95


def test_a_matrix_of_one_row_is_left_to_adamw():
    row = nn.Parameter(torch.ones(1, 4))
    optimizer = build_optimizer(MuonSpec(adam_lr=0.5), [{"name": "body weights", "params": [row]}])
    assert [(group["muon"], group["lr"]) for group in optimizer.param_groups] == [(False, 0.5)]
