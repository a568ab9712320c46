"""The log: gap-free under the fence, exact, and honest about steps that were run again."""

from __future__ import annotations

import csv
import io
import math

import pytest

from service.metrics import service as metrics
from tests.support.api import Served, resume_elsewhere, row

pytestmark = pytest.mark.postgresql


def log(service: Served, job: str, query: str = "") -> list[dict[str, object]]:
    rows: list[dict[str, object]] = service.client.get(f"/v1/jobs/{job}/metrics{query}").json()["data"]
    return rows


def test_seqs_have_no_gaps_over_any_number_of_chunks(service: Served) -> None:
    job = service.submit()
    claimed = service.claim()
    assert service.append(claimed, row("loss", 1.0), row("accuracy", 0.1)) == (1, 2)
    assert service.append(claimed) == (3, 2)
    assert service.append(claimed, *(row("loss", n, n) for n in range(300))) == (3, 302)
    assert [r["seq"] for r in log(service, job)] == list(range(1, 303))


def test_nothing_is_stored_of_a_transaction_that_fails(service: Served) -> None:
    job = service.submit()
    claimed = service.claim()
    try:
        with service.sessions.begin() as session:
            metrics.append(session, claimed.claim, [row("loss", 1.0)])
            raise RuntimeError("the worker died here")
    except RuntimeError:
        assert log(service, job) == []
    assert service.append(claimed, row("loss", 1.0)) == (1, 1)


def test_what_json_cannot_hold_is_null_and_named(service: Served) -> None:
    job = service.submit()
    claimed = service.claim()
    service.append(
        claimed, row("loss", 1.0), row("loss", math.nan, 2), row("loss", math.inf, 3), row("loss", -math.inf, 4)
    )
    rows = log(service, job)
    assert [r["value"] for r in rows] == [1.0, None, None, None]
    assert [r.get("nonfinite") for r in rows] == [None, "nan", "inf", "-inf"]
    assert service.job(job)["metrics"] == {"last": {"val_loss": None}, "best": {"val_loss": 1.0}}
    values = [r["value"] for r in csv.DictReader(io.StringIO(service.client.get(f"/v1/jobs/{job}/metrics.csv").text))]
    assert [math.isnan(float(v)) or float(v) for v in values] == [1.0, True, math.inf, -math.inf]


def test_last_and_best_follow_the_metric_s_direction(service: Served) -> None:
    job = service.submit()
    claimed = service.claim()
    for step, (loss, accuracy) in enumerate([(0.9, 0.5), (0.4, 0.8), (0.6, 0.7)], 1):
        service.append(claimed, row("loss", loss, step), row("accuracy", accuracy, step), row("lr", 0.1, step, "train"))
    shown = service.job(job)["metrics"]
    assert shown["last"] == {"val_loss": 0.6, "val_accuracy": 0.7, "train_lr": 0.1}
    assert shown["best"] == {"val_loss": 0.4, "val_accuracy": 0.8}


def test_rows_that_are_run_again_are_marked_never_dropped(service: Served) -> None:
    job = service.submit()
    first = service.claim()
    service.append(first, *(row("loss", 1 / n, n) for n in range(1, 5)))
    second = resume_elsewhere(service, first, 2)
    service.append(second, *(row("loss", 1 / n, n) for n in range(3, 6)))
    rows = log(service, job)
    assert [(r["seq"], r["step"], r["attempt"], r["superseded"]) for r in rows] == [
        (1, 1, 1, False),
        (2, 2, 1, False),
        (3, 3, 1, True),
        (4, 4, 1, True),
        (5, 3, 2, False),
        (6, 4, 2, False),
        (7, 5, 2, False),
    ]
    attempt = service.client.get(f"/v1/jobs/{job}/attempts").json()["data"][1]
    assert attempt["resumed_from_step"] == 2


def test_resuming_twice_from_one_checkpoint_marks_both_tails(service: Served) -> None:
    job = service.submit()
    claimed = service.claim()
    for _ in range(3):
        service.append(claimed, row("loss", 1.0, 1), row("loss", 0.5, 2))
        claimed = resume_elsewhere(service, claimed, 1)
    service.append(claimed, row("loss", 0.25, 2))
    assert [r["superseded"] for r in log(service, job)] == [False, *[True] * 5, False]


def test_a_best_that_was_run_again_does_not_linger(service: Served) -> None:
    job = service.submit()
    claimed = service.claim()
    service.append(claimed, row("loss", 0.5, 1), row("loss", 0.1, 2))
    resume_elsewhere(service, claimed, 1)
    assert service.job(job)["metrics"] == {"last": {"val_loss": 0.5}, "best": {"val_loss": 0.5}}


def test_resuming_where_the_log_ends_marks_nothing(service: Served) -> None:
    job = service.submit()
    claimed = service.claim()
    service.append(claimed, row("loss", 0.5, 1))
    resume_elsewhere(service, claimed, 1)
    assert [r["superseded"] for r in log(service, job)] == [False]


def test_decisions_are_rows_with_their_inputs(service: Served) -> None:
    job = service.submit()
    claimed = service.claim()
    decision = {
        "rule": {"kind": "patience", "patience": 2},
        "step": 10,
        "epoch": 1,
        "inputs": {"val_loss": math.nan, "waited": 1},
        "action": "continue",
    }
    for _ in range(2):
        with service.sessions.begin() as session:
            metrics.append_decisions(session, claimed.claim, [decision, {**decision, "rule": "diverged"}])
    rows = service.client.get(f"/v1/jobs/{job}/decisions").json()["data"]
    assert [r["seq"] for r in rows] == [1, 2, 3, 4]
    assert (rows[0]["inputs"], rows[1]["rule"]) == ({"val_loss": None, "waited": 1}, {"kind": "diverged"})
    assert [r["seq"] for r in service.client.get(f"/v1/jobs/{job}/decisions?after=3").json()["data"]] == [4]


def test_the_jobs_row_shows_no_layers_and_no_machine_though_it_resumed(service: Served) -> None:
    job = service.submit()
    claimed = service.claim()
    rows = [row("loss", 0.5), row("grad_norm.head", 2.0, split="layers"), row("cpu_percent", 90.0, split="system")]
    service.append(claimed, *rows)
    service.append(claimed, row("loss", 0.25, 2))
    assert service.job(job)["metrics"] == {"last": {"val_loss": 0.25}, "best": {"val_loss": 0.25}}
    resume_elsewhere(service, claimed, 3)
    assert service.job(job)["metrics"] == {"last": {"val_loss": 0.5}, "best": {"val_loss": 0.5}}
