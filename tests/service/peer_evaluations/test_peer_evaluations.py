"""Jobs of one experiment compared as their rows are stored, and replayed: on both databases, by hand and at random."""

from __future__ import annotations

import json
import math
import random
import shutil
import statistics
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.deletion import service as deletion
from service.metrics.chunks import MetricRow
from service.peer_evaluations import repository
from service.peer_evaluations.tables import PeerEvaluation, PeerGroup, PeerGroupMember
from tests.support.peer_jobs import MEDIAN, Lab, Run, make_lab, rows_of
from trainkit.spec.early_stop import PEER_RULE_KINDS
from trainkit.spec.problems import SpecError

pytestmark = pytest.mark.postgresql

QUARTER = {"kind": "percentile", "percentile": 25, "monitor": "val_loss", "min_jobs": 3}


@pytest.fixture
def lab(migrated_url: str, tmp_path: Path) -> Iterator[Lab]:
    instance = make_lab(migrated_url, tmp_path)
    yield instance
    instance.context.engine.dispose()


@pytest.fixture
def quick_lab(migrated_sqlite: Path, tmp_path: Path) -> Iterator[Lab]:
    shutil.copyfile(migrated_sqlite, tmp_path / "t.db")
    instance = make_lab(f"sqlite:///{tmp_path}/t.db", tmp_path)
    yield instance
    instance.context.engine.dispose()


def three(lab: Lab, *histories: list[float]) -> list[Run]:
    """Jobs of experiment `e` with these losses, one an epoch."""
    runs = []
    for losses in histories or ([4.0, 2.0, 0.0], [6.0, 4.0, 2.0], [2.0, 2.0, 2.0]):
        run = lab.start("e")
        for loss in losses:
            run.evaluate(loss)
        runs.append(run)
    return runs


def test_the_fourth_job_is_stopped_by_the_median_of_three(lab: Lab) -> None:
    peers = three(lab)
    run = lab.start("e", MEDIAN)
    for loss in (3.9, 3.1):
        run.evaluate(loss)
    first, second = run.decisions()
    assert (first.action, first.inputs["threshold"], second.action, second.inputs["threshold"]) == (
        "continue",
        4.0,
        "stop",
        3.0,
    )
    assert second.inputs["best"] == 3.1
    assert second.inputs["compared"] == [
        {"job": peer.job, "seq": peer.seen[1][0], "value": mean}
        for peer, mean in sorted(zip(peers, (3.0, 5.0, 2.0), strict=True), key=lambda pair: pair[0].job)
    ]
    row = run.row
    assert (row.state, row.next_decision_seq, row.peer_decisions) == ("stopping", 3, 2)
    assert row.requested_action == {
        "action": "stop",
        "keep": "best",
        "stop_reason": "early_stop",
        "reason": f"median: {second.reason}",
    }
    event = run.events()[-1]
    assert (event.to_state, event.actor, event.reason) == ("stopping", "rule", f"median: {second.reason}")
    run.evaluate(1.0)  # what the training process did until it heard of it
    run.finish("early_stop")
    assert (run.row.state, run.row.stop_reason) == ("succeeded", "early_stop")
    found = run.replay()
    assert (found.matches_recorded, found.total, found.evaluations) == (True, 2, 3)
    assert found.stop is not None
    assert (found.stop.epoch, found.stop.stop_reason, found.saved.epochs) == (2, "early_stop", 1)
    assert (found.cost.best_if_stopped, found.cost.best_seen) == (3.1, 1.0)


def test_the_percentile_of_the_values_at_the_epoch(lab: Lab) -> None:
    three(lab, [1.0, 9.0], [2.0, 8.0], [3.0, 7.0])
    run = lab.start("e", QUARTER)
    for loss in (1.5, 8.5):
        run.evaluate(loss)
    assert [(d.action, d.inputs["threshold"], d.inputs["best"]) for d in run.decisions()] == [
        ("continue", 1.5, 1.5),
        ("continue", 7.5, 1.5),
    ]
    assert run.replay().matches_recorded is True


def test_what_others_do_later_does_not_change_what_was_decided(lab: Lab) -> None:
    peers = three(lab)
    run = lab.start("e", MEDIAN, QUARTER)
    for loss in (3.9, 2.9):
        run.evaluate(loss)
    before = run.replay()
    assert before.matches_recorded is True
    for peer in peers:
        peer.resume(metric_seq=0, step=0)  # all of it is run again, with other numbers
        for loss in (0.1, 0.1, 0.1, 0.1):
            peer.evaluate(loss)
    lab.start("e").evaluate(0.01)
    after = run.replay()
    assert after == before
    run.evaluate(2.0)
    last = run.decisions()[-2]
    assert (last.rule["kind"], last.inputs["threshold"]) == ("median", pytest.approx(0.1))
    assert run.replay().matches_recorded is True
    # Rules that were never asked see the same: the median of the three as they were then, and not as they are now.
    never = run.replay([{**MEDIAN, "min_jobs": 2}])
    assert [d.inputs["threshold"] for d in never.decisions] == [4.0, 3.0, pytest.approx(0.1)]


def test_a_range_that_was_superseded_later_counted_when_it_was_looked_at(lab: Lab) -> None:
    """Twice from the same checkpoint: the log keeps only the longer range, the evaluations remember both."""
    one, two, three_ = three(lab, [4.0], [6.0], [2.0])
    run = lab.start("e", MEDIAN)
    for peer in (one, two, three_):
        peer.evaluate(8.0)
    run.evaluate(1.0)
    run.evaluate(1.0)  # averages 6, 7, 5
    kept = one.seen[0][0]
    one.resume(metric_seq=kept, step=1)
    run.evaluate(1.0, epoch=2)  # 7 and 5 are left: too few
    one.evaluate(0.0)
    run.evaluate(1.0, epoch=2)  # 2, 7, 5
    one.resume(metric_seq=kept, step=1)
    run.evaluate(1.0, epoch=2)
    one.evaluate(2.0)
    run.evaluate(1.0, epoch=2)  # 3, 7, 5
    assert [d.inputs["threshold"] for d in run.decisions()] == [4.0, 6.0, None, 5.0, None, 5.0]
    assert [[c["value"] for c in d.inputs["compared"] if c["job"] == one.job] for d in run.decisions()[1:]] == [
        [6.0],
        [],
        [2.0],
        [],
        [3.0],
    ]
    run.finish()
    assert run.replay().matches_recorded is True


def test_its_own_evaluations_that_are_run_again_are_decided_again(lab: Lab) -> None:
    three(lab)
    run = lab.start("e", MEDIAN)
    kept = run.evaluate(3.9)
    run.evaluate(0.5)
    run.resume(metric_seq=kept, step=1)
    run.evaluate(3.5)  # the 0.5 was never its best: 3.5 against 3
    decisions = run.decisions()
    assert [(d.fence, d.step, d.inputs["best"], d.action) for d in decisions] == [
        (1, 1, 3.9, "continue"),
        (1, 2, 0.5, "continue"),
        (2, 2, 3.5, "stop"),
    ]
    found = run.replay()
    assert (found.matches_recorded, [d.inputs["best"] for d in found.decisions]) == (True, [3.9, 3.5])


def test_a_stop_outlives_the_attempt_and_its_rows(lab: Lab) -> None:
    three(lab)
    run = lab.start("e", MEDIAN)
    kept = run.evaluate(3.9)
    run.evaluate(3.5)
    assert run.row.state == "stopping"
    run.resume(metric_seq=kept, step=1)
    assert (run.row.requested_action or {})["stop_reason"] == "early_stop"
    run.finish("early_stop")
    assert (run.row.state, run.row.requested_action) == ("succeeded", None)
    assert run.replay().matches_recorded is True


def test_an_evaluation_in_several_flushes_is_one(lab: Lab) -> None:
    three(lab)
    whole, cut = lab.start("e", MEDIAN), lab.start("other", MEDIAN)
    whole.evaluate(3.5, val_accuracy=0.5)
    for row in rows_of(1, 1, train_loss=1.75, val_loss=3.5, val_accuracy=0.5):
        cut.append(row)
        cut.append(MetricRow("train", "batch_loss", 1, 1, 9.0, 0.0), MetricRow("test", "loss", 1, 1, 9.0, 0.0))
    with lab.context.sessions() as session:
        one, other = repository.last(session, whole.job), repository.last(session, cut.job)
    assert one is not None
    assert other is not None
    assert (
        one.running_stats
        == other.running_stats
        == {
            "train_loss": [1.75, 1, 1.75, 1.75],
            "val_loss": [3.5, 1, 3.5, 3.5],
            "val_accuracy": [0.5, 1, 0.5, 0.5],
        }
    )
    # Of an evaluation that a death cut off nothing is left in the next one of that step.
    cut.append(MetricRow("val", "mae", 2, 2, 9.0, 0.0))
    cut.resume(metric_seq=cut.row.next_seq - 2, step=1)
    cut.append(*rows_of(2, 2, val_loss=3.0))
    with lab.context.sessions() as session:
        last = repository.last(session, cut.job)
    assert last is not None
    assert last.running_stats == {"val_loss": [3.0, 2, 6.5, 3.0]}


def test_numbers_that_json_has_not(lab: Lab) -> None:
    three(lab, [1e30, math.nan], [math.inf, 1.0], [5e-324, -math.inf])
    run = lab.start("e", {**MEDIAN, "min_jobs": 1}, QUARTER)
    run.evaluate(math.nan)
    run.evaluate(math.inf)
    decisions = run.decisions()
    thresholds = [None if (found := d.inputs["threshold"]) is None else float(found) for d in decisions]
    assert thresholds == [5e29, 2.5e29, None, 1.0]  # jsonb makes whole numbers of the large ones
    assert [d.action for d in decisions] == ["stop", "stop", "continue", "stop"]
    assert [d.inputs["best"] for d in decisions] == [None] * 4
    run.finish("diverged")
    assert run.replay().matches_recorded is True


def test_only_jobs_of_the_same_experiment_and_project_are_compared(lab: Lab, migrated_url: str, tmp_path: Path) -> None:
    three(lab)
    stranger = make_lab(migrated_url, tmp_path, "other").start("e", MEDIAN)
    stranger.evaluate(9.0)
    assert [(d.action, d.inputs["others"]) for d in stranger.decisions()] == [("continue", 0)]
    other, none = lab.start("f", MEDIAN), lab.start(None, MEDIAN)
    other.evaluate(9.0)
    none.evaluate(9.0)
    assert [(d.action, d.inputs["others"]) for d in other.decisions()] == [("continue", 0)]
    assert none.decisions() == []
    assert (none.replay().matches_recorded, none.replay().total) == (True, 0)
    with pytest.raises(SpecError, match="has no group") as caught:
        none.replay([{"kind": "diverged"}, MEDIAN])
    assert caught.value.problems[0].pointer == "/rules/1"
    with lab.context.sessions() as session:
        assert repository.count_members(session, lab.who.project_id, "e") == 3
        assert repository.last(session, none.job) is None


def test_who_evaluates_seldom_is_compared_where_it_has_come_by(lab: Lab) -> None:
    seldom = three(lab, *[[]] * 3)
    for run, value in zip(seldom, (1.0, 2.0, 3.0), strict=True):
        run.evaluate(value, epoch=3)
        run.evaluate(0.0, epoch=6)
    run = lab.start("e", MEDIAN, QUARTER)
    for epoch in range(1, 8):
        run.evaluate(1.9, epoch=epoch)
    by_median = [d.inputs["threshold"] for d in run.decisions() if d.rule["kind"] == "median"]
    by_percentile = [d.inputs["threshold"] for d in run.decisions() if d.rule["kind"] == "percentile"]
    assert by_median == [None, None, 2.0, 2.0, 2.0, 1.0, None]
    assert by_percentile == [None, None, 1.5, None, None, 0.0, None]


def test_a_deleted_job_is_compared_no_more_and_leaves_decisions_to_be_understood(lab: Lab) -> None:
    peers = three(lab)
    run = lab.start("e", MEDIAN)
    run.evaluate(3.9)
    peers[0].finish()
    with lab.context.sessions.begin() as session:
        deletion.delete_job(session, lab.context, lab.who, peers[0].job)
    run.evaluate(3.1)
    assert [d.inputs["others"] for d in run.decisions()] == [3, 2]
    run.finish()
    assert run.replay().matches_recorded is True
    for one in (*peers[1:], run):
        if one is not run:
            one.finish()
        with lab.context.sessions.begin() as session:
            deletion.delete_job(session, lab.context, lab.who, one.job)
    with lab.context.sessions() as session:
        for table in (PeerEvaluation, PeerGroup, PeerGroupMember):
            assert session.query(table).count() == 0, table


def test_a_flush_reads_one_row_a_job_however_long_their_histories(quick_lab: Lab) -> None:
    for _ in range(4):
        peer = quick_lab.start("e")
        peer.append(*[row for step in range(1, 301) for row in rows_of(step, step, val_loss=1.0)])
    run = quick_lab.start("e", MEDIAN)
    run.evaluate(0.5)
    with quick_lab.context.sessions() as session:
        found = repository.standings(session, quick_lab.who.project_id, "e", run.job, 200, 10**9)
        assert [(epoch, stats["val_loss"]) for _, _, epoch, stats in found] == [(200, [1.0, 200, 200.0, 1.0])] * 4
        plan = " ".join(
            str(row)
            for row in session.connection().exec_driver_sql(
                "EXPLAIN QUERY PLAN SELECT seq FROM peer_evaluations WHERE job_id = 'x' AND epoch <= 3 "
                "ORDER BY epoch DESC, seq DESC LIMIT 1"
            )
        )
    assert "evaluations_by_epoch" in plan
    assert "TEMP B-TREE" not in plan


# ---- at random ----


def play(lab: Lab, seed: int, experiment: str) -> dict[str, int]:
    """Five jobs by turns, with resumes from random checkpoints; each decision against a count by hand, then replayed."""
    rng = random.Random(seed)
    rules = [
        [{"kind": "median", "min_jobs": rng.randint(1, 3), "start_epoch": rng.choice([0, 0, 2])}],
        [{"kind": "percentile", "percentile": rng.choice([25, 40]), "min_jobs": rng.randint(1, 3)}],
        [MEDIAN, QUARTER],
        [],
        [{"kind": "patience", "patience": 50}, MEDIAN, {"kind": "stalled", "evaluations": 50}],
    ]
    runs = [lab.start(experiment, *of_run) for of_run in rules]
    stride = {run.job: rng.choice([1, 1, 1, 2]) for run in runs}
    checkpoints: dict[str, list[tuple[int, int, Any]]] = {run.job: [(0, 0, [])] for run in runs}
    counts = {"stop": 0, "continue": 0, "resumed": 0}
    for _ in range(32):
        run = rng.choice(runs)
        if rng.random() < 0.2:
            # Only the newest checkpoint, or the one before it: as many as are kept.
            seq, step, state = rng.choice(checkpoints[run.job][-2:])
            run.resume(seq, step, state)
            checkpoints[run.job] = [one for one in checkpoints[run.job] if one[0] <= seq]
            counts["resumed"] += 1
            continue
        loss = (
            rng.choice([round(rng.random(), 1), rng.random(), math.nan, math.inf])
            if rng.random() < 0.3
            else rng.random()
        )
        known = len(run.decisions())
        seq = run.evaluate(loss, epoch=(run.step + 1) * stride[run.job])
        for decision in run.decisions()[known:]:
            check(decision, run, [other for other in runs if other is not run])
            counts[decision.action] += 1
        if rng.random() < 0.5:
            checkpoints[run.job].append((seq, run.step, run.early_stopping.state()))
    for run in runs:
        run.finish()
        found = run.replay()
        assert found.matches_recorded is True, (seed, run.job)
        for rule in rules[runs.index(run)]:
            if rule["kind"] in PEER_RULE_KINDS:
                check_replay_of_rule(run, rule)
    return counts


def check_replay_of_rule(run: Run, rule: dict[str, Any]) -> None:
    """The rule by itself, as if it had never been asked: its decisions up to the stop."""
    seqs = {seq for seq, _, _ in run.seen}
    with run.lab.context.sessions() as session:
        live = {
            (e.step, e.valid_from) for e in session.query(PeerEvaluation).filter_by(job_id=run.job) if e.seq in seqs
        }
    taken = [d for d in run.decisions() if d.rule["kind"] == rule["kind"] and d.rule["min_jobs"] == rule["min_jobs"]]
    taken = [d for d in taken if (d.step, d.inputs.get("basis")) in live or "start_epoch" in d.inputs]
    found = run.replay([rule]).decisions
    replayed = [json.dumps([d.inputs, d.action], sort_keys=True) for d in found if "basis" in d.inputs]
    recorded = [json.dumps([d.inputs, d.action], sort_keys=True) for d in taken if "basis" in d.inputs]
    assert replayed == recorded[: len(replayed)]
    assert len(replayed) == len(recorded) or found[-1].action == "stop"


def check(decision: Any, run: Run, others: list[Run]) -> None:
    """The threshold and the answer, from the test's own lists of what counts."""
    epoch, rule = decision.epoch, decision.rule
    if "threshold" not in decision.inputs:
        assert epoch <= rule["start_epoch"]
        assert decision.action == "continue"
        return
    values = []
    for other in others:
        reached = [(at, value) for _, at, value in other.seen if at <= epoch]
        if not reached or other.seen[-1][1] < epoch:
            continue
        if rule["kind"] == "median":
            values.append(sum(value for _, value in reached) / len(reached))
        elif reached[-1][0] == epoch:
            values.append(reached[-1][1])
    finite = [value for value in values if math.isfinite(value)]
    threshold = None
    if len(values) >= rule["min_jobs"] and finite:
        if rule["kind"] == "median":
            threshold = statistics.median(finite)
        else:
            threshold = float(np.percentile(finite, rule["percentile"]))
    losses = [value for _, _, value in run.seen if math.isfinite(value)]
    assert decision.inputs["others"] == len(values)
    assert decision.inputs["threshold"] == threshold
    assert decision.inputs["best"] == (min(losses) if losses else None)
    assert (decision.action == "stop") == (threshold is not None and (not losses or min(losses) > threshold))


@pytest.mark.parametrize("seeds", [range(10), pytest.param(range(2000, 2200), marks=pytest.mark.soak)], ids=len)
def test_random_histories_replay_to_what_was_decided(quick_lab: Lab, seeds: range) -> None:
    total = {"stop": 0, "continue": 0, "resumed": 0}
    for seed in seeds:
        for name, count in play(quick_lab, seed, f"e{seed}").items():
            total[name] += count
    assert min(total.values()) > 2 * len(seeds), total


def test_random_histories_on_postgresql(new_postgres_database: Any, migrated_postgres: str, tmp_path: Path) -> None:
    lab = make_lab(new_postgres_database(template=migrated_postgres), tmp_path)
    for seed in range(1000, 1003):
        play(lab, seed, f"e{seed}")
    lab.context.engine.dispose()


def test_jobs_that_log_at_the_same_time_see_what_a_replay_sees(
    new_postgres_database: Any, migrated_postgres: str, tmp_path: Path
) -> None:
    """Four writers at once: each decision rests on whole commits, in one order."""
    lab = make_lab(new_postgres_database(template=migrated_postgres), tmp_path)
    runs = [lab.start("e", {**MEDIAN, "min_jobs": 1}, {**QUARTER, "min_jobs": 1}) for _ in range(4)]
    failures: list[BaseException] = []

    def write(run: Run, seed: int) -> None:
        rng = random.Random(seed)
        try:
            for _ in range(25):
                run.evaluate(rng.random())
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(run, seed)) for seed, run in enumerate(runs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    compared = 0
    for run in runs:
        run.finish("early_stop")
        assert run.replay().matches_recorded is True
        compared += sum(d.inputs["others"] > 0 for d in run.decisions())
        assert len({d.inputs["basis"] for d in run.decisions()}) == 25
    assert compared > 50
    lab.context.engine.dispose()
