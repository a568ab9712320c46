"""What cannot fit is refused with a spec that does; what fits, or lies in a GPU, is not."""

from __future__ import annotations

from typing import Any

import pytest

from trainkit.spec import DatasetFacts, JobSpec, resolve
from trainkit.spec.estimate import PROCESS_BYTES
from trainkit.spec.memory import MIB, does_not_fit, limit_of, needed_bytes, spec_that_fits

FACTS = DatasetFacts.model_validate(
    {
        "kind": "images",
        "samples": 1000,
        "input_shape": [3, 64, 64],
        "input_dtype": "uint8",
        "classes": {"a": 500, "b": 500},
        "target_type": "class",
    }
)


def job(**changes: Any) -> JobSpec:
    model = {"kind": "cnn", "channels": [64, 128]}
    return JobSpec.model_validate({"dataset": "ds_1", "model": model, "train": {"batch_size": 256}, **changes})


@pytest.mark.parametrize(
    ("max_memory_bytes", "most", "limit"),
    [(None, 0, 0), (None, 5, 5), (3 << 20, 0, 3 << 20), (3 << 20, 2 << 20, 2 << 20), (1 << 20, 2 << 20, 1 << 20)],
)
def test_the_lower_limit_holds(max_memory_bytes: int | None, most: int, limit: int) -> None:
    assert limit_of({"resources": {"max_memory_bytes": max_memory_bytes}}, most) == limit


def test_what_fits_is_not_refused() -> None:
    resolved = resolve(job(), FACTS)
    assert does_not_fit(resolved, FACTS, needed_bytes(resolved, FACTS)) is None
    assert does_not_fit(resolved, FACTS, 0) is None
    on_gpu = resolve(job(resources={"device": "cuda"}), FACTS)
    assert does_not_fit(on_gpu, FACTS, MIB) is None


def test_the_offer_fits_and_steps_stay_the_same() -> None:
    resolved = resolve(job(), FACTS)
    limit = PROCESS_BYTES + (needed_bytes(resolved, FACTS) - PROCESS_BYTES) // 3
    problem = does_not_fit(resolved, FACTS, limit)
    offer = spec_that_fits(resolved, FACTS, limit)
    assert problem is not None
    assert offer is not None
    assert (problem.pointer, problem.code) == ("/resources/max_memory_bytes", "does_not_fit")
    smaller = resolve(JobSpec.model_validate(offer["spec"]), FACTS)
    assert needed_bytes(smaller, FACTS) <= limit
    assert smaller.spec.train.batch_size * smaller.spec.train.gradient_accumulation_steps == 256
    assert offer["fork"]
    assert f"train.batch_size {smaller.spec.train.batch_size}" in problem.hint


def test_no_offer_below_what_torch_alone_takes() -> None:
    resolved = resolve(job(), FACTS)
    assert spec_that_fits(resolved, FACTS, PROCESS_BYTES // 2) is None
    problem = does_not_fit(resolved, FACTS, PROCESS_BYTES // 2)
    assert problem is not None
    assert "smaller model" in problem.hint
