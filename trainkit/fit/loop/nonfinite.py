"""Where a loss that is not finite began: the step, and the first module or parameter or sample that is not."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from trainkit.fit.device import autocast, forward_of
from trainkit.fit.encoding.prepare import Part
from trainkit.fit.evaluation.evaluate import Forward, batch_rows
from trainkit.fit.loop.batches import Batch, BatchPlan
from trainkit.fit.loop.phases import ActivePhase
from trainkit.fit.loop.setup import RunSetup

Piece = tuple[Tensor, Tensor | None, Tensor]
"""(x, side_input, target) of one forward pass."""


class LossNotFiniteError(RuntimeError):
    """Training ended without weights that can be used. `evidence` says where it began."""

    def __init__(self, evidence: dict[str, Any]) -> None:
        place = f" at step {evidence['step']} (epoch {evidence['epoch']})" if "step" in evidence else ""
        super().__init__(
            f"the loss stopped being finite{place}: {describe_nonfinite(evidence)}; no usable weights were kept"
        )
        self.evidence = evidence


class LossMonitor:
    """Sees every step's loss: at once on the CPU, elsewhere in a buffer on the device that is read at the log steps."""

    def __init__(self, device: torch.device, every: int, step: int) -> None:
        self._seen = None if device.type == "cpu" else torch.zeros(every, device=device)
        self._checked_step = step

    def note(self, step: int, loss: Tensor) -> bool:
        """Whether the loss of this step is known to be not finite; elsewhere than on the CPU that is known later."""
        if self._seen is None:
            return not math.isfinite(loss.item())
        self._seen[step % len(self._seen)] = loss
        return False

    def look(self, step: int) -> tuple[int, float] | None:
        """(step, loss) of the first one that was not finite since the last look, at most `every` steps ago."""
        if self._seen is None:
            return None
        values, since = self._seen.tolist(), self._checked_step
        self._checked_step = step
        steps = ((one, values[one % len(values)]) for one in range(since + 1, step + 1))
        return next(((one, value) for one, value in steps if not math.isfinite(value)), None)


def is_finite(module: nn.Module) -> bool:
    """Whether every parameter and buffer is."""
    return broken_state(module) is None


def broken_state(module: nn.Module) -> dict[str, Any] | None:
    """`{where, layer, layer_type, parameter}` of the first parameter or buffer that is not finite."""
    for name, tensor in module.state_dict().items():
        if _broken(tensor):
            layer = name.rpartition(".")[0]
            kind = type(module.get_submodule(layer)).__name__
            return {"where": "parameter", "layer": layer, "layer_type": kind, "parameter": name}
    return None


def first_broken(
    modules: dict[str, nn.Module],
    forward: Forward,
    pieces: Iterable[Piece],
    loss: Callable[[Tensor, Tensor], Tensor],
    device: torch.device,
) -> dict[str, Any] | None:
    """`{where, layer, layer_type, ...}` of what is not finite first; None when all is.

    `where`: `input` (with `position` in the batch), `parameter`, `output` (with `max_abs_before` and `max_abs_weight`,
    the largest finite magnitudes that went into the layer and that its weights have) or `loss` (of outputs up to
    `max_abs_before`; `layer` gave out the greatest value). Leaves buffers and generators as they were. `modules`: by
    prefix of their names, the network under "".
    """
    pieces, position = list(pieces), 0
    for x, _, _ in pieces:
        if _broken(x):
            return {"where": "input", "layer": None, "layer_type": None, "position": position + _first_sample(x)}
        position += len(x)
    for prefix, module in modules.items():
        if found := broken_state(module):
            return {**found, "layer": prefix + found["layer"], "parameter": prefix + found["parameter"]}
    buffers = [(buffer, buffer.clone()) for module in modules.values() for buffer in module.buffers()]
    probe = _Probe(modules)
    position = 0
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            for x, side_input, target in pieces:
                z = forward(x, side_input)
                if probe.found is not None:
                    return probe.found
                losses = loss(z.float(), target)
                if _broken(losses):
                    at = position + _first_sample(losses)
                    _, name, kind = probe.largest
                    return {"where": "loss", "layer": name, "layer_type": kind, "position": at, **_before([z])}
                position += len(x)
    finally:
        probe.close()
        for buffer, before in buffers:
            buffer.copy_(before)
    return None


def describe_nonfinite(evidence: dict[str, Any]) -> str:
    """The evidence for people."""
    layer = f"{evidence.get('layer')} ({evidence.get('layer_type')})"
    match evidence.get("where"):
        case "input":
            return f"the input is not finite in sample {evidence['sample']} of the dataset"
        case "parameter" if evidence.get("read_at_step"):
            later = f"the losses were read at step {evidence['read_at_step']}, after the update had reached the weights"
            return f"{later}; {evidence['parameter']} of {layer} is the first that is not finite now"
        case "parameter":
            return f"the weights are not finite, first {evidence['parameter']} of {layer}"
        case "output":
            given = f"given values up to {evidence['max_abs_before']:.3g}"
            return f"the first output that is not finite is that of {layer}, {given}"
        case "loss":
            given = f"up to {evidence['max_abs_before']:.3g}, the greatest value is from {layer}"
            return f"the outputs are finite, {given}, and their loss is not"
    return "the layer cannot be told: with another dropout mask the same batch is finite"


class _Probe:
    """Hooks on every module: the first one that gives what is not finite out of what was."""

    def __init__(self, modules: dict[str, nn.Module]) -> None:
        self.found: dict[str, Any] | None = None
        self.largest: tuple[float, str, str] = (-1.0, "", "")
        """The greatest magnitude that a layer has given out: (value, name, type)."""
        self._open: list[tuple[str, nn.Module, tuple[Any, ...]]] = []
        self._handles = []
        for prefix, top in modules.items():
            for name, module in top.named_modules(prefix=prefix.rstrip(".")):
                self._handles.append(module.register_forward_pre_hook(self._before_of(name)))
                self._handles.append(module.register_forward_hook(self._after))

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()

    def _before_of(self, name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def before(module: nn.Module, args: tuple[Any, ...]) -> None:
            self._open.append((name, module, args))
            if self.found is None and any(map(_broken, _tensors(args))):
                # No module gave it out: the code between them did, which is the enclosing module's own.
                self._blame(*self._open[max(len(self._open) - 2, 0)])

        return before

    def _after(self, module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
        name, _, _ = self._open.pop()
        if self.found is None and any(map(_broken, _tensors(out))):
            self._blame(name, module, args)
        if next(module.children(), None) is None:
            self.largest = max(self.largest, (_largest(_tensors(out)), name, type(module).__name__))

    def _blame(self, name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        weights = [parameter.detach() for parameter in module.parameters()]
        self.found = {
            "where": "output",
            "layer": name,
            "layer_type": type(module).__name__,
            **_before(_tensors(args)),
            "max_abs_weight": _largest(weights),
        }


def _before(tensors: Iterable[Tensor]) -> dict[str, float]:
    return {"max_abs_before": _largest(tensors)}


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):  # a PackedSequence is a tuple, too
        for one in value:
            yield from _tensors(one)


def _broken(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and not bool(torch.isfinite(tensor).all())


def _first_sample(tensor: Tensor) -> int:
    bad = ~torch.isfinite(tensor.reshape(len(tensor), -1)).all(1)
    return int(bad.nonzero()[0])


def _largest(tensors: Iterable[Tensor]) -> float:
    sizes = [tensor.abs() for tensor in tensors if tensor.is_floating_point() and tensor.numel()]
    return max((float(size.where(torch.isfinite(size), 0).max()) for size in sizes), default=0.0)


def explain_step(
    setup: RunSetup, batches: BatchPlan, phase: ActivePhase, batch: Batch, value: float, *, read_at: int
) -> dict[str, Any]:
    """`{step, epoch, batch_loss, where, layer, layer_type, ...}` of a step whose loss `value` is not finite. Logs it.

    Looks at the batch once more. `read_at`: the step after which the loss was read; on an accelerator the weights may
    have been updated since.
    """
    step = (batch.epoch - 1) * batches.count + batch.step + 1
    # What the dataset holds comes before what was made of it: mixup hands a bad value on to another sample.
    found = _first_bad_sample(phase.train.take(batch.rows)[0])
    if found is None:
        forward = eager_forward(setup, phase)
        if setup.adapter is not None:
            adapter, place = setup.adapter, {"epoch": batch.epoch, "step": batch.step}

            def forward(x: Tensor, side_input: Tensor | None) -> Tensor:
                with autocast(setup.runtime):
                    z, domain_loss = adapter(setup.network, x, side_input, **place, progress=batch.progress)
                outputs: Tensor = z + 0 * domain_loss  # a domain loss that is not finite counts
                return outputs

        cuts = [batch.cut(*span) for span in batches.micro_batches(len(batch.rows))]
        pieces = [(cut.x, cut.side_input, cut.target) for cut in cuts]
        found = first_broken(_modules(setup), forward, pieces, setup.loss, setup.device)
    evidence = {"step": step, "epoch": batch.epoch, "batch_loss": value, **_named(found, phase.train, batch.rows)}
    if read_at >= step:
        evidence["read_at_step"] = read_at
    setup.events.log(
        f"step {step} (epoch {batch.epoch}): the loss is {value}; {describe_nonfinite(evidence)}", "warning"
    )
    return evidence


def explain_evaluation(
    setup: RunSetup, phase: ActivePhase, step: int, epoch: int, losses: dict[str, float]
) -> dict[str, Any]:
    """The same of an evaluation whose losses are not finite though every batch's was, from its weights and its data."""
    found = broken_state(setup.network)
    part = phase.val
    rows = torch.zeros(0, dtype=torch.int64)
    if found is None and part is not None and not math.isfinite(losses.get("val_loss", 0.0)):
        size = batch_rows(tuple(part.x.shape[1:]))
        setup.network.eval()
        for start in range(0, len(part), size):
            rows = torch.arange(start, min(start + size, len(part)), device=part.x.device)
            x, side_input = part.take(rows)
            piece: Piece = (setup.data.preprocessing(x) if part.pending else x, side_input, part.targets[rows])
            found = first_broken(_modules(setup), eager_forward(setup, phase), [piece], setup.loss, setup.device)
            if found is not None:
                break
    evidence = {"step": step, "epoch": epoch, **losses, **_named(found, part, rows)}
    setup.events.log(f"after step {step} (epoch {epoch}): {describe_nonfinite(evidence)}", "warning")
    return evidence


def eager_forward(setup: RunSetup, phase: ActivePhase) -> Forward:
    """The phase's forward pass, uncompiled: hooks do not reach into compiled code."""
    if phase.forward is not setup.forward:
        return phase.forward  # on cached features
    return forward_of(setup.network, setup.runtime, compiled=False)


def _modules(setup: RunSetup) -> dict[str, nn.Module]:
    return {"": setup.network} if setup.adapter is None else {"": setup.network, "domain.": setup.adapter}


def _first_bad_sample(x: Tensor) -> dict[str, Any] | None:
    bad = ~torch.isfinite(x.reshape(len(x), -1)).all(1)
    if not bool(bad.any()):
        return None
    return {"where": "input", "layer": None, "layer_type": None, "position": int(bad.nonzero()[0])}


def _named(found: dict[str, Any] | None, part: Part | None, rows: Tensor) -> dict[str, Any]:
    """With the sample's number in the dataset for its position in the batch."""
    named = dict(found or {"where": "unknown", "layer": None, "layer_type": None})
    position = named.pop("position", None)
    if position is not None and part is not None:
        named["sample"] = int(part.index[int(rows[position])])
    return named
