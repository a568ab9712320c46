"""A job that ran out of memory is offered a spec that needs less."""

from __future__ import annotations

from typing import Any

import pytest

from trainkit.spec import DatasetFacts, parse_spec, resolve
from trainkit.spec.estimate import estimate
from trainkit.spec.failures import failure
from trainkit.spec.memory import next_spec, with_next_spec

IMAGES = DatasetFacts(
    kind="images",
    samples=5000,
    input_shape=(3, 32, 32),
    input_dtype="uint8",
    classes={"a": 2500, "b": 2500},
    target_type="class",
)


def document(model: dict[str, Any] | None = None, **train: Any) -> dict[str, Any]:
    return {"dataset": "ds_1", "model": model or {"kind": "mlp"}, "train": train}


@pytest.mark.parametrize(
    ("batch_size", "accumulation_steps", "offered"),
    [
        (64, 1, (32, 2, True)),
        (32, 2, (16, 4, True)),
        (33, 1, (11, 3, True)),  # a divisor: the step keeps its samples
        (100, 3, (50, 6, True)),
        (37, 1, (18, 2, False)),  # a prime has none near its half
        (2, 1, (1, 2, True)),
    ],
)
def test_passes_are_halved_and_steps_stay(
    batch_size: int, accumulation_steps: int, offered: tuple[int, int, bool]
) -> None:
    offer = next_spec(document(batch_size=batch_size, gradient_accumulation_steps=accumulation_steps, seed=3), {})
    assert offer["patch"] == {"train": {"batch_size": offered[0], "gradient_accumulation_steps": offered[1]}}
    assert offer["fork"] is offered[2]
    assert offer["spec"]["train"] == {"batch_size": offered[0], "gradient_accumulation_steps": offered[1], "seed": 3}
    parse_spec(offer["spec"])


@pytest.mark.parametrize("kind", ["mlp", "cnn", "residual_cnn", "lstm", "torchvision"])
def test_offers_go_on_until_nothing_is_left_and_each_needs_less(kind: str) -> None:
    """From what is submitted, and from the spec that the job ran with; each is a valid spec."""
    facts = IMAGES
    if kind == "lstm":
        facts = IMAGES.model_copy(update={"kind": "sequences", "input_shape": (20, 6), "input_dtype": "float32"})
    offered: Any = parse_spec(document({"kind": kind}, batch_size=16))
    needs, offer = float("inf"), {}
    for _ in range(60):
        spec = offered if not isinstance(offered, dict) else parse_spec(offered)
        now = estimate(resolve(spec, facts), facts)["memory_bytes"]
        assert now < needs
        needs, offer = now, next_spec(offered, {})
        if offer["patch"] is None:
            break
        assert offer["fork"] is ("train" in offer["patch"])
        offered = offer["spec"]
    assert (offer["patch"], offer["spec"], offer["fork"]) == (None, None, False)
    assert "split.subsample" in offer["why"]


def test_batch_norm_keeps_two_samples_a_pass() -> None:
    offer = next_spec(document({"kind": "cnn", "channels": [8, 16]}, batch_size=3), {})
    assert offer["patch"] == {"model": {"channels": [4, 8]}}
    bare = next_spec(document({"kind": "cnn", "channels": [8, 16], "norm": "none"}, batch_size=3), {})
    assert bare["patch"] == {"train": {"batch_size": 1, "gradient_accumulation_steps": 3}}


def test_what_was_not_said_counts_as_its_default() -> None:
    offer = next_spec({"dataset": "ds_1", "model": {"kind": "linear"}}, {})
    assert offer["patch"] == {"train": {"batch_size": 32, "gradient_accumulation_steps": 2}}
    adapted = {"dataset": "ds_1", "model": {"kind": "mlp"}, "adapt": {"target_dataset": "ds_2"}}
    offer = next_spec(adapted, {})
    assert (offer["patch"], offer["fork"]) == ({"train": {"batch_size": 32, "gradient_accumulation_steps": 1}}, False)
    resolve(offer["spec"], IMAGES)
    last = next_spec({"dataset": "ds_1", "model": {"kind": "gru"}, "train": {"batch_size": 1}}, {})
    assert last["patch"] == {"model": {"hidden": 32}}


def test_only_the_want_of_memory_is_answered_and_its_numbers_are_said() -> None:
    evidence = {"peak_memory_bytes": 300 << 20, "memory_limit_bytes": 512 << 20}
    error = with_next_spec(failure("out_of_memory", "x", evidence), document(batch_size=8))
    assert error["evidence"]["peak_memory_bytes"] == 300 << 20
    assert "300 MiB of 512 MiB" in error["evidence"]["next_spec"]["why"]
    other = failure("disk_full", "x")
    assert with_next_spec(other, document()) is other
