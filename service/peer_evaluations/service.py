"""Jobs of one group compared: every evaluation is noted, and the rules across jobs are asked about it.

All of it happens in the transaction that stores the evaluation's rows, under the fence.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

from sqlalchemy.orm import Session

from service.jobs.tables import Job
from service.peer_evaluations import repository
from service.peer_evaluations.tables import PeerEvaluation
from trainkit.diagnose.early_stopping import EarlyStopDecision, Evaluation
from trainkit.diagnose.peer_rules import PeerLookup, PeerRules, PeerState, RunningStats
from trainkit.diagnose.replay import BATCH_LOSS, EVALUATION_MARKER, LogRow, is_observed, observations
from trainkit.spec.early_stop import PEER_RULE_KINDS, PeerRule, RuleSet, peer_rules_of

if TYPE_CHECKING:
    from service.metrics.chunks import MetricRow


def observe(
    session: Session,
    job: Job,
    first_seq: int,
    rows: Sequence[MetricRow],
    earlier: Iterable[tuple[MetricRow, bool]],
) -> list[EarlyStopDecision]:
    """Note the evaluations among rows that were stored just now, and decide about each.

    `earlier` are the rows before them, the last one first, each with whether it is superseded; read as far as needed.
    """
    if job.group_name is None:
        return []
    seqs = [seq for seq, row in enumerate(rows, first_seq) if f"{row.split}_{row.name}" == EVALUATION_MARKER]
    if not seqs:
        return []
    log_rows = [*_of_the_same_step(rows, earlier), *_as_log(rows)]
    evaluations = [moment for moment in observations(log_rows) if isinstance(moment, Evaluation)][-len(seqs) :]
    now = repository.next_version(session, job.project_id, job.group_name)
    before = repository.last(session, job.id)
    if before is None:
        repository.join(session, job.project_id, job.group_name, job.id)
    peer_rules = rules_of(job)
    rules = (
        PeerRules(peer_rules) if before is None else PeerRules(peer_rules, _read(before.running_stats), before.epoch)
    )
    look = others(session, job, peer_rules, now)
    decisions, noted = [], []
    for seq, evaluation in zip(seqs, evaluations, strict=True):
        decisions += rules.observe(evaluation, look, now)
        noted.append(
            PeerEvaluation(
                job_id=job.id,
                seq=seq,
                step=evaluation.step,
                epoch=evaluation.epoch,
                valid_from=now,
                running_stats=_written(rules.running_stats),
            )
        )
    repository.add(session, noted)
    return decisions


def others(session: Session, job: Job, rules: Sequence[PeerRule], at: int) -> PeerLookup:
    """How the other jobs of the group stood at an epoch, in what these rules watch, as it was known at `at`."""
    names = {rule.monitor for rule in rules}

    def look(epoch: int) -> list[PeerState]:
        if job.group_name is None:
            return []
        found = repository.standings(session, job.project_id, job.group_name, job.id, epoch, at)
        return [PeerState(other, seq, other_epoch, _read(stats, names)) for other, seq, other_epoch, stats in found]

    return look


def rules_of(job: Job) -> tuple[PeerRule, ...]:
    """The job's rules that compare it with others."""
    named = [rule for rule in (job.resolved or {}).get("early_stop", ()) if rule["kind"] in PEER_RULE_KINDS]
    return peer_rules_of(RuleSet.model_validate({"rules": named}).rules or ())


def supersede_after(session: Session, job: Job, metric_seq: int) -> None:
    """Evaluations beyond that place of the log are run again: from now on they do not count."""
    if job.group_name is not None:
        now = repository.next_version(session, job.project_id, job.group_name)
        repository.supersede(session, job.id, metric_seq, now)


def leave(session: Session, job: Job) -> None:
    """The job is deleted. Nobody is compared with it any more, but what was decided stays to be understood.

    So its evaluations stay until the last job of the group goes.
    """
    if job.group_name is None:
        return
    now = repository.next_version(session, job.project_id, job.group_name)
    if repository.has_others(session, job.project_id, job.group_name, job.id):
        repository.supersede(session, job.id, 0, now)
    else:
        repository.delete_group(session, job.project_id, job.group_name)


def _of_the_same_step(rows: Sequence[MetricRow], earlier: Iterable[tuple[MetricRow, bool]]) -> list[LogRow]:
    """What was stored earlier of the evaluation that these rows begin in the midst of, if they do."""
    step = next(row.step for row in rows if _is_seen(row.split, row.name))
    found: list[LogRow] = []
    for row, superseded in earlier:
        if not _is_seen(row.split, row.name):
            continue
        if row.step != step or superseded:
            break
        found += _as_log([row])
    return found[::-1]


def _as_log(rows: Sequence[MetricRow]) -> list[LogRow]:
    return [
        (f"{row.split}_{row.name}", row.step, row.epoch, row.value) for row in rows if _is_seen(row.split, row.name)
    ]


def _is_seen(split: str, name: str) -> bool:
    """Whether the rules may look at it; a batch loss between evaluations says nothing across jobs."""
    return is_observed(split, name) and f"{split}_{name}" != BATCH_LOSS


def _written(stats: Mapping[str, RunningStats]) -> dict[str, Any]:
    return {name: [_number(stat.value), stat.count, _number(stat.total), stat.best] for name, stat in stats.items()}


def _number(value: float) -> float | str:
    return value if isfinite(value) else str(value)


def _read(stats: Mapping[str, Any], names: Collection[str] | None = None) -> dict[str, RunningStats]:
    return {
        name: RunningStats(float(value), count, float(total), None if best is None else float(best))
        for name, (value, count, total, best) in stats.items()
        if names is None or name in names
    }
