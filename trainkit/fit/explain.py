"""Why a step's loss, or an evaluation, is not finite: the evidence, by looking at that very batch again."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from trainkit.fit.batches import Steps
from trainkit.fit.device import autocast, forward_of
from trainkit.fit.evaluate import Forward, batch_rows
from trainkit.fit.nonfinite import Piece, broken_state, first_broken, sentence
from trainkit.fit.phases import ActivePhase
from trainkit.fit.run_state import Job
from trainkit.fit.splits import Part
from trainkit.fit.state import Position


def explain_step(
    job: Job, now_open: ActivePhase, batches: Steps, at: Position, order: Tensor, bad: int, value: float
) -> dict[str, Any]:
    """`{step, epoch, batch_loss, where, layer, layer_type, ...}` of step `bad` of this epoch. Logs a sentence."""
    step = bad - (at.step - at.step_in_epoch) - 1
    start, end = batches.span(step)
    part, rows = now_open.train, order[start:end]
    batch = batches.batch(part, rows, at.epoch, step)
    cuts = [batch.cut(*piece) for piece in batches.pieces(len(rows))]
    # What the dataset holds comes before what was made of it: mixup hands a bad value on to another sample.
    found = _first_bad_sample(part.take(rows)[0])
    if found is None:
        forward = eager(job, now_open)
        if job.adapter is not None:
            adapter, progress = job.adapter, at.step / (batches.count * job.spec.train.epochs)

            def forward(x: Tensor, lengths: Tensor | None) -> Tensor:
                with autocast(job.decided):
                    z, extra = adapter(job.network, x, lengths, epoch=at.epoch, step=step, progress=progress)
                outputs: Tensor = z + 0 * extra  # a domain loss that is not finite counts
                return outputs

        found = first_broken(
            _modules(job), forward, [(cut.x, cut.lengths, cut.target) for cut in cuts], job.loss, job.device
        )
    evidence = {"step": bad, "epoch": at.epoch, "batch_loss": value, **_named(found, part, rows)}
    if at.step >= bad:
        evidence["read_at_step"] = at.step
    job.events.log(f"step {bad} (epoch {at.epoch}): the loss is {value}; {sentence(evidence)}", "warning")
    return evidence


def explain_evaluation(job: Job, now_open: ActivePhase, at: Position, losses: dict[str, float]) -> dict[str, Any]:
    """The same of an evaluation whose losses are not finite though every batch's was, from its weights and its data."""
    found = broken_state(job.network)
    part = now_open.val
    rows = torch.zeros(0, dtype=torch.int64)
    if found is None and part is not None and not math.isfinite(losses.get("val_loss", 0.0)):
        size = batch_rows(tuple(part.x.shape[1:]))
        job.network.eval()
        for start in range(0, len(part), size):
            rows = torch.arange(start, min(start + size, len(part)), device=part.x.device)
            x, lengths = part.take(rows)
            piece: Piece = (job.data.preprocessing(x) if part.pending else x, lengths, part.targets[rows])
            found = first_broken(_modules(job), eager(job, now_open), [piece], job.loss, job.device)
            if found is not None:
                break
    evidence = {"step": at.step, "epoch": at.epoch, **losses, **_named(found, part, rows)}
    job.events.log(f"after step {at.step} (epoch {at.epoch}): {sentence(evidence)}", "warning")
    return evidence


def eager(job: Job, now_open: ActivePhase) -> Forward:
    """The phase's forward pass, uncompiled: hooks do not reach into compiled code."""
    if now_open.forward is not job.forward:
        return now_open.forward  # on cached features
    return forward_of(job.network, job.decided, compiled=False)


def _modules(job: Job) -> dict[str, nn.Module]:
    return {"": job.network} if job.adapter is None else {"": job.network, "domain.": job.adapter}


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
