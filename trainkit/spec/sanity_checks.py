"""Probes: short trainings beside a run that tell why it learns little. Which there are, and where one makes no sense."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from trainkit.spec.models import Cnn, Gru, Lstm, Mlp, ModelSpec, ResidualCnn, SklearnModel

if TYPE_CHECKING:
    from trainkit.spec.job import JobSpec

SanityCheck = Literal["first_batch", "small_model"]


def why_skipped(spec: JobSpec, probe: SanityCheck) -> str | None:
    """Why the probe makes no sense for such a job, in words; None where it does."""
    if spec.model.kind == "ensemble" or isinstance(spec.model, SklearnModel):
        return f"{spec.model.kind} is not trained step by step"
    if probe == "first_batch":
        return None
    if spec.start_from is not None or getattr(getattr(spec.model, "init", None), "kind", None) == "pretrained":
        return "a model that begins with trained weights has no smaller one to be compared with"
    if spec.adapt is not None:
        return "domain adaptation gives up training loss on purpose"
    if smaller_model(spec.model) is None:
        return f"there is no smaller model than this {spec.model.kind}"
    return None


def smaller_model(model: ModelSpec) -> ModelSpec | None:
    """A far narrower and shallower model of the same kind, all else as usual; None where there is none.

    A quarter of the width, within 8..32 units or 4..16 channels; one hidden layer, recurrent layer or stage, two blocks.
    """
    match model.kind:
        case "mlp" if model.hidden:
            widest = max(model.hidden)
            one = Mlp(hidden=(min(widest, _quarter(widest, 8, 32)),))
            return one if sum(one.hidden) < sum(model.hidden) else None
        case "cnn":
            blocks = Cnn(channels=tuple(_quarter(width, 4, 16) for width in model.channels[:2]), head=model.head)
            return blocks if sum(blocks.channels) < sum(model.channels) else None
        case "residual_cnn":
            stage = ResidualCnn(channels=(_quarter(model.channels[0], 4, 16),))
            return stage if sum(stage.channels) < sum(model.channels) else None
        case "lstm" | "gru":
            kind = Lstm if model.kind == "lstm" else Gru
            width = _quarter(model.hidden, 4, 16)
            return kind(hidden=width, pooling=model.pooling) if width < model.hidden * model.layers else None
        case "torchvision":
            return Cnn(channels=(8, 16))
        case _:
            return None


def _quarter(width: int, least: int, most: int) -> int:
    return max(least, min(most, width // 4))
