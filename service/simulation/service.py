"""Replay early-stop rules on a job's log: the decisions, and whether they are those that were taken."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from sqlalchemy.orm import Session

from service.errors import HttpProblem
from service.jobs import repository
from service.jobs.tables import Decision as Taken
from service.jobs.tables import Job
from service.metrics.service import finite, scan
from service.peer_evaluations import repository as comparisons
from service.peer_evaluations.service import others
from service.simulation.schemas import Cost, SavedTraining, SimulatedDecision, SimulatedStop, SimulationOut
from trainkit.diagnose.early_stopping import EarlyStopDecision, Evaluation
from trainkit.diagnose.peer_rules import PeerRules
from trainkit.diagnose.replay import BATCH_LOSS, EVALUATION_MARKER, BatchLoss, LogRow, Replay, is_observed, observations
from trainkit.spec import JobSpec
from trainkit.spec.early_stop import PEER_RULE_KINDS, EarlyStopRule, PeerRule, check_logged, peer_rules_of
from trainkit.spec.metrics import with_mode
from trainkit.spec.problems import Problem as SpecProblem
from trainkit.spec.problems import SpecError

MOST = 200_000
"""Decisions of one replay: some seconds of work."""
MOST_COMPARED = 1_000_000
"""Evaluations of one replay times the jobs that they are compared with."""
A_READ = 1000
NOT_A_RULE = frozenset({"client_stop", "max_seconds"})
"""Kinds of decisions that no rule takes."""


def simulate(
    session: Session, job: Job, given: tuple[EarlyStopRule, ...] | None, after: int, limit: int
) -> SimulationOut:
    """The page of decisions after `after`, and what came of them. Raises SpecError for rules that lack a series."""
    spec = JobSpec.model_validate(job.resolved or job.spec)
    rules = tuple(with_mode(rule) for rule in spec.early_stop) if given is None else given
    logged, evaluated = survey(session, job.id)
    if logged:
        check_logged(rules, logged)
    if len(evaluated) * len(rules) > MOST:
        detail = (
            f"{len(evaluated)} evaluations of {len(rules)} rules are more than {MOST} decisions. Ask with fewer rules."
        )
        raise HttpProblem(422, "history_too_long", detail)
    peers = PeerReplay(session, job, rules, len(evaluated), from_spec=given is None)
    replay = Replay(rules, _metric(spec, logged))
    page: list[SimulatedDecision] = []
    total = evaluations = 0
    same = True
    # Of one evaluation the two kinds are stored in either order, for two processes take them.
    kinds = () if given is not None else (False, True) if peer_rules_of(rules) else (False,)
    taken = {kind: _taken(session, job.id, evaluated, peers=kind) for kind in kinds}
    for observation in observations(history(session, job.id)):
        evaluations += isinstance(observation, Evaluation)
        stopped = replay.stop is not None
        try:
            # After a stop nothing is asked for any more, but what was taken on the way to the end is compared.
            decisions = replay.feed(observation, () if stopped and given is not None else peers.at(observation))
        except KeyError as error:
            where = f"at step {observation.step} {error.args[0]}"
            raise SpecError([SpecProblem("/rules", "not_logged", where, "Leave out the rule that needs it.")]) from None
        for decision in decisions:
            if not stopped:
                total += 1
                if after < total <= after + limit:
                    page.append(_wire(total, decision))
            if given is None:
                earlier = next(taken[decision.rule["kind"] in PEER_RULE_KINDS], None)
                same &= _still_comes(job) if earlier is None else _same(earlier, decision)
    stop = replay.stop
    return SimulationOut(
        decisions=page,
        next=page[-1].seq if page else after,
        total=total,
        evaluations=evaluations,
        stop=stop and SimulatedStop(**_fields(stop), stop_reason=str(stop.stop_reason)),
        saved=SavedTraining(**replay.saved()),
        cost=Cost(**replay.cost()),
        matches_recorded=None
        if given is not None
        else same and all(next(left, None) is None for left in taken.values()),
    )


class PeerReplay:
    """The rules across jobs, asked about each evaluation with the others as they were when it was stored."""

    def __init__(
        self, session: Session, job: Job, rules: tuple[EarlyStopRule, ...], evaluations: int, *, from_spec: bool
    ) -> None:
        """Raises SpecError for a job that has no group, unless the rules come `from_spec`, where they never act."""
        given = peer_rules_of(rules)
        self._session, self._job, self._rules = session, job, PeerRules(given)
        self._times: dict[int, int] = {}
        if not given:
            return
        if job.group_name is None:
            if not from_spec:
                raise SpecError([_alone(rules, given)])
            return
        members = comparisons.count_members(session, job.project_id, job.group_name)
        if evaluations * members > MOST_COMPARED:
            detail = f"{evaluations} evaluations against {members} jobs are more than {MOST_COMPARED} comparisons."
            raise HttpProblem(422, "history_too_long", f"{detail} Leave out the rules across jobs.")
        self._times = comparisons.versions_by_step(session, job.id)

    def at(self, observation: Evaluation | BatchLoss) -> list[EarlyStopDecision]:
        """Their decisions; none between evaluations."""
        now = self._times.get(observation.step)
        if now is None or not isinstance(observation, Evaluation):
            return []
        return self._rules.observe(observation, others(self._session, self._job, self._rules.rules, now), now)


def _alone(rules: tuple[EarlyStopRule, ...], given: tuple[PeerRule, ...]) -> SpecProblem:
    message = f"the {given[0].kind} rule compares jobs of one group, and this job has no group"
    return SpecProblem(f"/rules/{rules.index(given[0])}", "no_group", message, "Leave it out.")


def survey(session: Session, job_id: str) -> tuple[frozenset[str], frozenset[tuple[int, int]]]:
    """The series with rows that count, and (attempt, step) of every moment that the rules were asked about."""
    logged: set[str] = set()
    evaluated: set[tuple[int, int]] = set()
    for piece in scan(session, job_id, 0):
        columns, live = piece.columns, ~piece.superseded
        for index, (split, name) in enumerate(columns.series):
            rows = live & (columns.index == index)
            if f"{split}_{name}" == BATCH_LOSS:
                rows &= ~np.isfinite(columns.value)
            if rows.any():
                logged.add(f"{split}_{name}")
            if f"{split}_{name}" in (EVALUATION_MARKER, BATCH_LOSS):
                evaluated |= {(piece.attempt, step) for step in columns.step[rows].tolist()}
    return frozenset(logged), frozenset(evaluated)


def history(session: Session, job_id: str) -> Iterator[LogRow]:
    """The rows that count and that rules look at, in order."""
    for piece in scan(session, job_id, 0):
        columns = piece.columns
        selected = ~piece.superseded
        for index, (split, name) in enumerate(columns.series):
            if not is_observed(split, name):
                selected &= columns.index != index
            elif f"{split}_{name}" == BATCH_LOSS:
                selected &= (columns.index != index) | ~np.isfinite(columns.value)
        names = [f"{split}_{name}" for split, name in columns.series]
        picked = (column[selected].tolist() for column in (columns.index, columns.step, columns.epoch, columns.value))
        for index, step, epoch, value in zip(*picked, strict=True):
            yield names[index], step, epoch, value


def _taken(session: Session, job_id: str, evaluated: frozenset[tuple[int, int]], *, peers: bool) -> Iterator[Taken]:
    """The rules' stored decisions about rows that count: those of steps that were run again are left out.

    Either those of rules across jobs or all others.
    """
    after = 0
    while rows := repository.decisions_after(session, job_id, after, A_READ):
        for row in rows:
            kind = row.rule.get("kind")
            if (row.fence, row.step) in evaluated and kind not in NOT_A_RULE and (kind in PEER_RULE_KINDS) == peers:
                yield row
        after = rows[-1].seq
        for row in rows:
            if row in session:  # the other reader of the same decisions may have let go of it
                session.expunge(row)


def _same(taken: Taken, replayed: EarlyStopDecision) -> bool:
    """Whether they agree in all but the evidence of where a loss began to be not finite, which the log does not hold."""
    inputs, reason = taken.inputs, taken.reason or ""
    if replayed.stop_reason == "diverged" and "where" in inputs:
        inputs = {name: value for name, value in inputs.items() if name in replayed.inputs}
        reason = reason[: len(replayed.reason)]
    values = (replayed.rule, replayed.step, replayed.epoch, finite(replayed.inputs), replayed.action, replayed.reason)
    return bool(_plain((taken.rule, taken.step, taken.epoch, inputs, taken.action, reason)) == _plain(values))


def _plain(value: Any) -> Any:
    """Numbers as floats: jsonb makes 1e30 the whole number 10**30, which is another one."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _still_comes(job: Job) -> bool:
    """Whether decisions may be on their way: rows and decisions of one evaluation need not be written at once."""
    return job.state not in ("succeeded", "stopped")


def _metric(spec: JobSpec, logged: frozenset[str]) -> str:
    """What "best" means in this job."""
    if spec.train.monitor is not None:
        return spec.train.monitor
    return "val_loss" if "val_loss" in logged else "train_loss"


def _fields(decision: EarlyStopDecision) -> dict[str, Any]:
    return {name: getattr(decision, name) for name in ("rule", "step", "epoch", "reason")}


def _wire(seq: int, decision: EarlyStopDecision) -> SimulatedDecision:
    return SimulatedDecision(seq=seq, **_fields(decision), inputs=finite(decision.inputs), action=decision.action)
