"""Submit a job: a spec, or one of those that a diagnosis recommends, which is diagnosed again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from sqlalchemy.orm import Session

from service.context import Context
from service.database import reading
from service.diagnosis.combined import read_source, recommended_specs
from service.errors import HttpProblem
from service.jobs import service as jobs
from service.jobs.idempotency import is_known
from service.jobs.limits import limits_of
from service.jobs.lineage import Branch
from service.jobs.service import CheckedSpec
from service.jobs.tables import Job
from service.principal import Principal
from service.recommendations import repository
from service.recommendations.effect import comparison
from service.recommendations.schemas import FromDiagnosisIn
from service.recommendations.service import best_of
from service.recommendations.tables import Recommendation
from trainkit.diagnose.diagnosis import RULESET_VERSION
from trainkit.diagnose.recommendations import RecommendedSpec
from trainkit.spec import Problem as SpecProblem
from trainkit.spec import SpecError
from trainkit.spec.problems import problems_from_validation


def create(context: Context, who: Principal, document: Any, idempotency_key: str | None) -> tuple[Job, bool]:
    """Submit a job: a spec, or one that a diagnosis recommends. Returns (job, whether it is new).

    The document is checked, and the source job diagnosed, before the transaction that writes: nobody waits for that.
    """
    if isinstance(document, Mapping) and "from_diagnosis" in document:
        return submit(context, who, document, idempotency_key)
    with reading(context.sessions) as session:
        checked = None
        if idempotency_key is None or not is_known(session, who.project_id, idempotency_key):
            checked = jobs.check(session, who, document, limits_of(session, context.settings))
    with context.sessions.begin() as session:
        return jobs.create(session, context, who, document, idempotency_key, checked=checked)


def submit(
    context: Context, who: Principal, document: Mapping[str, Any], idempotency_key: str | None
) -> tuple[Job, bool]:
    """Submit a spec that a diagnosis recommends, and store why. Returns (job, whether it is new).

    Raises SpecError for a request with mistakes or an index that is not there, a 404 problem for an unknown job, a 409
    problem while it has not ended, a 410 problem when its metrics are gone.
    """
    try:
        request = FromDiagnosisIn.model_validate(document)
    except ValidationError as error:
        raise SpecError(problems_from_validation(error, document, FromDiagnosisIn)) from None
    changed = request.model_dump(include={"name", "labels"}, exclude_none=True)

    def read(session: Session) -> tuple[RecommendedSpec, Mapping[str, Any], CheckedSpec]:
        source = jobs.find(session, who, request.from_diagnosis.job)
        chosen = _chosen(session, source, request.from_diagnosis.index)
        limits = limits_of(session, context.settings)
        return chosen, best_of(session, source.id), jobs.check(session, who, {**chosen.spec, **changed}, limits)

    with reading(context.sessions) as session:
        replayed = idempotency_key is not None and is_known(session, who.project_id, idempotency_key)
        found = None if replayed else read(session)

    def recommended(session: Session) -> tuple[Any, Branch]:
        # the source has ended, so what was read of it stays; only whether it was deleted since is to be seen
        source = jobs.find(session, who, request.from_diagnosis.job)
        chosen, best_before, _ = found or read(session)

        def remember(session: Session, job: Job) -> None:
            repository.add(session, _recommendation(source, job, chosen, best_before))

        return {**chosen.spec, **changed}, Branch(source, "diagnosis", None, remember)

    checked = None if found is None else found[2]
    with context.sessions.begin() as session:
        return jobs.create(session, context, who, document, idempotency_key, recommended, checked=checked)


def _chosen(session: Session, source: Job, index: int) -> RecommendedSpec:
    diagnosed = read_source(session, source)
    if not diagnosed.final:
        detail = f"The job is {source.state}: its diagnosis may still change. Wait until it has ended, or stop it."
        raise HttpProblem(409, "wrong_state", detail)
    recommended, codes = recommended_specs(diagnosed)
    offered = len(recommended)
    if index >= offered:
        found = ", ".join(codes)
        hint = f"0 to {offered - 1} are valid." if offered else f"It recommends nothing; its verdicts: {found}."
        message = f"the diagnosis has {offered} recommendations, none with index {index}"
        raise SpecError([SpecProblem("/from_diagnosis/index", "no_such_index", message, hint)])
    return recommended[index]


def _recommendation(source: Job, job: Job, chosen: RecommendedSpec, best_before: Mapping[str, Any]) -> Recommendation:
    metric = chosen.expected["metric"]
    compared = comparison(metric, source.resolved or {}, job.resolved or {}, best_before)
    return Recommendation(
        job_id=job.id,
        project_id=job.project_id,
        source_job=source.id,
        code=chosen.code,
        ruleset_version=RULESET_VERSION,
        patch=chosen.patch,
        expected=chosen.expected,
        compared={**compared, "expected_before": source.metrics_best.get(metric)},
        created_at=job.created_at,
    )
