"""HTTP of experiments: many jobs as one."""

from __future__ import annotations

from typing import Annotated, Any, get_args

from fastapi import APIRouter, Body, Depends, Query, Response

from service.auth import Reader, Writer
from service.context import Service
from service.database import reading
from service.experiments import service
from service.experiments.comparison import between
from service.experiments.schemas import (
    ComparisonOut,
    ExperimentDetail,
    ExperimentOut,
    ExperimentRow,
    ExperimentState,
    ResultsOut,
    StopExperimentIn,
    detail_out,
    experiment_out,
    results_out,
)
from service.experiments.tables import Experiment
from service.jobs.routes import IdempotencyKey
from service.listing.filters import ChoiceFilter, CreatedFilter, ExactFilter, LabelFilter, TextFilter, TimeFilter
from service.listing.query import ListOf, ListQuery, SortField
from service.listing.repository import page
from service.pagination import Page
from service.request_body import EXPERIMENT_BODY, Document
from service.request_sessions import ReadSession, SessionRoute, WriteSession

router = APIRouter(prefix="/v1/experiments", tags=["experiments"], route_class=SessionRoute)
Metric = Annotated[str | None, Query(max_length=64, description="Another metric to tell the trials apart by.")]


@router.post(
    "",
    status_code=201,
    response_model=ExperimentDetail,
    openapi_extra=EXPERIMENT_BODY,
    summary="Folds, sweeps, baselines, an ensemble or the autopilot: many jobs as one",
)
def create_experiment(
    response: Response,
    who: Writer,
    document: Document,
    context: Service,
    idempotency_key: IdempotencyKey = None,
) -> ExperimentDetail:
    """Checks the plan and creates its first jobs; the others follow as earlier ones end. The answer is the experiment,
    with what its jobs say together. 422 for a plan with mistakes, all of them at once, each with its JSON pointer.
    """
    # sessions of its own: the plan is checked and its jobs are made without one transaction around all
    experiment, new = service.create(context, who, document, idempotency_key)
    response.headers["Location"] = f"/v1/experiments/{experiment.id}"
    if not new:
        response.headers["Idempotency-Replayed"] = "true"
    with reading(context.sessions) as session:
        return detail_out(service.view(session, service.find(session, who, experiment.id)))


EXPERIMENTS = ListOf(
    Experiment.id,
    ExperimentOut,
    sorts=[SortField("created_at", Experiment.id), SortField("name", Experiment.name)],
    filters=[
        ChoiceFilter("state", Experiment.state, choices=get_args(ExperimentState)),
        ExactFilter("kind", Experiment.kind, max_length=40),
        TextFilter("name", Experiment.name),
        ExactFilter("dataset", Experiment.dataset_id),
        LabelFilter(column=Experiment.labels),
        CreatedFilter(column=Experiment.created_at, ids=Experiment.id, prefix="exp"),
        TimeFilter("finished_at", Experiment.finished_at),
        TimeFilter("updated_at", Experiment.updated_at),
    ],
    default_fields=",".join(ExperimentRow.model_fields),
)


@router.get("", response_model=Page[ExperimentRow], summary="Experiments, newest first")
def list_experiments(
    who: Reader, session: ReadSession, query: Annotated[ListQuery, Depends(EXPERIMENTS.query)]
) -> Response:
    """A row has no `plan` unless `fields` asks for it."""
    return query.respond(page(session, query, Experiment.project_id == who.project_id), experiment_out)


@router.get(
    "/{experiment_id}", response_model=ExperimentDetail, summary="One experiment, and what its jobs say together"
)
def get_experiment(experiment_id: str, who: Reader, session: ReadSession) -> ExperimentDetail:
    """State, plan, and what its jobs have come to so far: how many are in each state, the best trial, a summary of each
    variant with its spread, and comparisons of variants in pairs.
    """
    return detail_out(service.view(session, service.find(session, who, experiment_id)))


@router.get("/{experiment_id}/results", response_model=ResultsOut, summary="The live table: a row a job")
def get_experiment_results(experiment_id: str, who: Reader, session: ReadSession, metric: Metric = None) -> ResultsOut:
    """Each job with its parameters, state and metrics. `metric` chooses by which one the rows are told; an unknown one
    is 422.
    """
    return results_out(service.view(session, service.find(session, who, experiment_id), metric))


@router.get(
    "/{experiment_id}/comparison",
    response_model=ComparisonOut,
    summary="Whether another experiment on the same cuts is better than this one",
)
def compare_experiments(
    experiment_id: str,
    who: Reader,
    session: ReadSession,
    other: Annotated[str, Query(alias="with", max_length=64, description="The other experiment: B.")],
    metric: Metric = None,
) -> dict[str, Any]:
    """Pairs the jobs of both experiments that have the same training and validation rows, and tests the differences.
    Takes experiments of kind `kfold` and `monte_carlo` on one dataset.

    409 when they cannot be paired, or have no pair with a metric yet.
    """
    a, b = (service.find(session, who, one) for one in (experiment_id, other))
    return between(service.view(session, a, metric), service.view(session, b, metric))


@router.post(
    "/{experiment_id}/stop", response_model=ExperimentOut, summary="Make no more jobs, and end those under way"
)
def stop_experiment(
    experiment_id: str, who: Writer, context: Service, request: Annotated[StopExperimentIn | None, Body()] = None
) -> ExperimentOut:
    """No further job is created. `running` says what becomes of those under way: stop and keep a model, cancel, or
    finish. Safe to repeat: an experiment that has ended stays as it ended.
    """
    return experiment_out(service.stop(context, who, experiment_id, (request or StopExperimentIn()).running))


@router.delete("/{experiment_id}", status_code=204, summary="Delete an ended experiment; its jobs stay")
def delete_experiment(experiment_id: str, who: Writer, session: WriteSession) -> None:
    """Deletes the plan and its results. The jobs stay, with their models. 409 (`wrong_state`) while it has not ended."""
    service.delete(session, who, experiment_id)
