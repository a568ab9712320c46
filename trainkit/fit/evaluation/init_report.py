"""What the first forward pass looks like: pre-activations and activations of each layer on one real batch.

With n unscaled U(0, 1) weights the pre-activation of a sigmoid unit grows like n and saturates; dividing by sqrt(n) keeps it
in range. The report shows such things before any time is spent on training.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor, nn

from trainkit.data import Dataset
from trainkit.fit.encoding.forecast import as_windows
from trainkit.fit.encoding.prepare import prepare
from trainkit.fit.evaluation.activation_stats import (
    ACTIVATIONS,
    RECURRENT,
    SAMPLES,
    hooked,
    modules_of,
    near_an_end,
    states,
    unit_axis,
)
from trainkit.fit.seeding import derive, epoch_order
from trainkit.nn.build import build_model
from trainkit.plots.sheets import BLUE, GRID, INK, png
from trainkit.plots.style import literal
from trainkit.spec import JobSpec, resolve

WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
BINS, MOST_VALUES = 40, 1 << 20


def init_report(spec: JobSpec, data: Dataset) -> dict[str, Any]:
    """`{samples, layers: [{name, kind, values, mean, std, min, max, histogram, saturated_share, dead_share}]}`.

    `values` is pre_activation (output of a linear or convolution layer) or activation. `dead_share` is the share of units
    (channels) that give the same value for every sample of the batch. Raises SpecError, DataError.
    """
    resolved = resolve(spec, data.facts).spec
    if resolved.task == "forecasting":
        data = as_windows(resolved, data)
    prepared = prepare(resolved, data, torch.device("cpu"), lambda _: None)
    seed = derive(resolved.train.seed, "init")
    network = build_model(resolved.model, prepared.sample_shape, prepared.outputs, seed, columns=prepared.columns)
    rows = prepared.draw[epoch_order(len(prepared.draw), resolved.train.seed, 1)[:SAMPLES]]
    x, side_input = prepared.train.take(rows)
    x = prepared.preprocessing(x) if prepared.train.pending else x
    layers: list[dict[str, Any]] = []

    def observe(path: str, module: nn.Module, output: Any) -> None:
        layers.append({"name": path, "kind": type(module).__name__, **_numbers(module, states(output).detach())})

    # as in training: batch norm uses the batch, but dropout would hide which units are dead
    network.train()
    for module in network.modules():
        if isinstance(module, nn.Dropout | nn.Dropout2d):
            module.eval()
    with torch.no_grad(), hooked(modules_of(network, WEIGHTED + ACTIVATIONS + RECURRENT), observe):
        network(x, side_input)
    return {"samples": len(rows), "model": resolved.model.kind, "layers": layers}


def _numbers(module: nn.Module, output: Tensor) -> dict[str, Any]:
    flat = output.flatten()
    shown: NDArray[Any] = flat[:: max(1, flat.numel() // MOST_VALUES)].double().numpy()
    finite = shown[np.isfinite(shown)]
    counts, edges = np.histogram(finite if len(finite) else np.zeros(1), bins=BINS)
    axis = unit_axis(output)
    units = output.movedim(axis, -1).reshape(-1, output.shape[axis])
    near = near_an_end(module, output)
    return {
        "values": "pre_activation" if isinstance(module, WEIGHTED) else "activation",
        "mean": float(finite.mean()) if len(finite) else None,
        "std": float(finite.std()) if len(finite) else None,
        "min": float(finite.min()) if len(finite) else None,
        "max": float(finite.max()) if len(finite) else None,
        "nonfinite": int(len(shown) - len(finite)),
        "histogram": {"counts": counts.tolist(), "edges": [float(edge) for edge in edges]},
        "saturated_share": None if near is None else float(near.double().mean()),
        "dead_share": float((units.amax(0) == units.amin(0)).double().mean()),
    }


def init_report_png(report: dict[str, Any]) -> bytes:
    """One histogram a layer: pre-activations above, activations below, in the order of the forward pass."""
    layers = report["layers"][:24]
    across = min(4, max(1, len(layers)))
    rows = -(-len(layers) // across)
    figure = Figure(figsize=(2.6 * across, 1.9 * rows + 0.3), dpi=130, layout="constrained")
    for index, layer in enumerate(layers):
        axes = figure.add_subplot(rows, across, index + 1)
        edges, counts = np.array(layer["histogram"]["edges"]), layer["histogram"]["counts"]
        colour = BLUE if layer["values"] == "pre_activation" else "#d1603d"
        axes.bar(edges[:-1], counts, width=np.diff(edges), align="edge", color=colour)
        note = f"std {layer['std']:.3g}" if layer["std"] is not None else "not finite"
        if layer["saturated_share"]:
            note += f", {layer['saturated_share']:.0%} saturated"
        if layer["dead_share"]:
            note += f", {layer['dead_share']:.0%} dead"
        axes.set_title(f"{literal(layer['name'] or layer['kind'])}\n{note}", fontsize=6.5, color=INK)
        axes.tick_params(labelsize=6, length=2)
        axes.set_yticks([])
        axes.grid(color=GRID, linewidth=0.5)
        axes.set_axisbelow(True)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
    figure.suptitle("before training: pre-activations (blue), activations (red)", fontsize=8, color=INK)
    return png(figure)
