"""The typed responses have the fields of the API document, and accept what a newer service adds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.openapi_document import openapi_document
from tests.support.scripted_server import Reply, scripted_server
from trainkit_client import BadResponse, Client, types

RELEASED = json.loads((Path(__file__).parents[1] / "clients" / "released-openapi.json").read_text())
CURRENT = openapi_document()
JOB = "job_" + "0" * 26
NAMES = {
    "Alias": types.Alias,
    "Artifact": types.Artifact,
    "Attempt": types.Attempt,
    "BestTrial": types.BestTrial,
    "Checkpoint": types.Checkpoint,
    "Comparison": types.ExperimentComparison,
    "CreatedKey": types.CreatedKey,
    "Dataset": types.DatasetFields,
    "DatasetOfJob": types.DatasetOfJob,
    "DatasetReport": types.DatasetReport,
    "Decision": types.Decision,
    "Diagnosis": types.Diagnosis,
    "Estimate": types.Estimate,
    "Evaluation": types.Evaluation,
    "ExpectedEffect": types.ExpectedEffect,
    "ExperimentDetail": types.ExperimentFields,
    "ExperimentResults": types.ExperimentResults,
    "ExperimentRow": types.ExperimentRowFields,
    "Failure": types.Failure,
    "Finding": types.Finding,
    "Info": types.Info,
    "Job": types.JobFields,
    "JobEvent": types.JobEvent,
    "JobMetrics": types.MetricSummary,
    "JobProgress": types.JobProgress,
    "JobResult": types.JobResult,
    "JobRow": types.JobRowFields,
    "JobRuntime": types.JobRuntime,
    "Key": types.Key,
    "LogLine": types.LogLine,
    "Me": types.Me,
    "Measured": types.MeasuredEffect,
    "MetricRow": types.MetricRow,
    "Model": types.ModelFields,
    "ModelRow": types.ModelRowFields,
    "ParentJob": types.ParentJob,
    "Prediction": types.Prediction,
    "Project": types.Project,
    "Recommendation": types.Recommendation,
    "RecommendedSpec": types.RecommendedSpec,
    "Suspect": types.Suspect,
    "Trial": types.Trial,
    "ValidatedSpec": types.ValidatedSpec,
    "Verdict": types.Verdict,
    "Worker": types.Worker,
}
"""Component of the API document -> its type."""


@pytest.mark.parametrize("component", NAMES)
def test_a_type_has_the_fields_of_its_component(component: str) -> None:
    response_type = NAMES[component]
    fields = {field.alias or name for name, field in response_type.model_fields.items()}
    released, current = (
        set(document["components"]["schemas"][component]["properties"]) for document in (RELEASED, CURRENT)
    )
    assert released - fields == set()  # nothing that was released is missing; what came since is accepted anyway
    if component != "Evaluation":  # that of a model has warnings as well
        assert fields - current == set()  # nothing is invented


def recorded(operation: str) -> list[Any]:
    """Answers that were recorded of the service."""
    path = Path(__file__).parents[2] / "service" / "openapi_examples" / f"{operation}.json"
    examples = json.loads(path.read_text())["responses"]
    return [body for kinds in examples.values() for body in kinds.get("application/json", {}).values()]


@pytest.mark.parametrize(
    ("operation", "response_type"),
    [
        ("createJob", types.JobFields),
        ("getDataset", types.DatasetFields),
        ("getDatasetReport", types.DatasetReport),
        ("getExperiment", types.ExperimentFields),
        ("getExperimentResults", types.ExperimentResults),
        ("getInfo", types.Info),
        ("getJob", types.JobFields),
        ("getJobDiagnosis", types.Diagnosis),
        ("getJobEvaluation", types.Evaluation),
        ("getJobRecommendation", types.Recommendation),
        ("getMe", types.Me),
        ("getModel", types.ModelFields),
        ("validateSpec", types.ValidatedSpec),
    ],
)
def test_recorded_answers_come_back_as_they_were(operation: str, response_type: type[types.Response]) -> None:
    answers = recorded(operation)
    assert answers
    for answer in answers:
        assert normal(response_type.model_validate(answer).to_dict()) == normal(answer)


def normal(value: Any) -> Any:
    """A document whose times are without trailing zeros, as pydantic writes them."""
    if isinstance(value, dict):
        return {key: normal(item) for key, item in value.items()}
    if isinstance(value, list):
        return [normal(item) for item in value]
    if isinstance(value, str) and value.endswith("Z") and "T" in value:
        return value[:-1].rstrip("0").rstrip(".") if "." in value else value[:-1]
    return value


def test_new_fields_and_values_are_accepted() -> None:
    answer = {
        "id": JOB,
        "state": "hibernating",
        "metrics": {"best": {"val_f9": 0.5}, "median": {}},
        "progress": {"percent": 3, "carbon_grams": 7},
        "error": {"code": "new_code", "layer": "cosmic", "message": "m"},
        "new_object": {"a": [1]},
    }
    with scripted_server(Reply(200, answer)) as server, Client(server.url, "tk_test") as client:
        job: Any = client.jobs.get(JOB)
    assert (job.state, job.has_ended) == ("hibernating", False)
    assert job.new_object == {"a": [1]}
    assert job.progress.carbon_grams == 7
    assert job.to_dict() == answer


def test_another_document_is_refused() -> None:
    with (
        scripted_server(Reply(200, {"hello": "world"})) as server,
        Client(server.url, "tk_test") as client,
        pytest.raises(BadResponse, match="no Job: id"),
    ):
        client.jobs.get(JOB)
