"""Colour steps are refused at validation where the dataset's images are no colours, with the place and what to do."""

from __future__ import annotations

from typing import Any

import pytest

from trainkit.spec import DatasetFacts, JobSpec, SpecError, resolve


def problems(ranges: Any, channels: int = 3, kind: str = "hue", model: str = "cnn") -> list[tuple[str, str, str]]:
    facts = DatasetFacts(
        kind="arrays",
        samples=100,
        input_shape=(channels, 8, 8),
        target_type="class",
        classes={"a": 50, "b": 50},
        value_ranges=ranges,
    )
    spec: dict[str, Any] = {"dataset": "d", "model": {"kind": model}, "augment": [{"kind": "noise"}, {"kind": kind}]}
    try:
        resolve(JobSpec.model_validate(spec), facts)
    except SpecError as error:
        return [(problem.pointer, problem.message, problem.hint) for problem in error.problems]
    return []


@pytest.mark.parametrize("kind", ["hue", "saturation"])
def test_colour_steps_need_colours(kind: str) -> None:
    assert problems(((0.0, 16.0),) * 3, kind=kind) == []
    assert problems(None, kind=kind) == []
    assert problems(((0.0, 1.0),), channels=1, kind=kind) == [
        (
            "/augment/1",
            f"{kind} needs colour images: these images have 1 channel, not red, green and blue",
            "Remove it.",
        )
    ]
    ((pointer, message, hint),) = problems(((-2.0, 2.5),) * 3, kind=kind)
    assert pointer == "/augment/1"
    assert "the values run from -2 to 2.5, as after standardisation" in message
    assert hint == "Remove it. Or upload the images as they were, and put z_score into `preprocess`."
    assert "different ranges" in problems(((0.0, 1.0), (0.0, 1.0), (0.0, 9.0)), kind=kind)[0][1]


@pytest.mark.parametrize("kind", ["brightness", "contrast", "noise", "rand_augment"])
def test_other_steps_need_none(kind: str) -> None:
    assert problems(((-2.0, 2.5), (0.0, 4000.0)), channels=2, kind=kind) == []


@pytest.mark.parametrize("channels", [2, 4, 7])
def test_networks_of_torchvision_need_one_channel_or_three(channels: int) -> None:
    ((pointer, message, _),) = problems(None, channels=channels, kind="noise", model="torchvision")
    assert pointer == "/model/kind"
    assert f"these have {channels} channels" in message
    assert problems(None, channels=1, kind="noise", model="torchvision") == []
