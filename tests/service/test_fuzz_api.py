"""Generated requests for every route, on both databases: right ones, wrong ones, and chains of them.

No answer is the service's fault; each has a status, media type, headers and a body that OpenAPI declares; what breaks its
schema is refused; what keeps to its schema is refused only by a rule that a schema cannot say.
"""

from __future__ import annotations

import copy
import itertools
import json
import shutil
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.parameters import ParameterLocation
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from service.app import create_app
from service.openapi import operations
from service.settings import Settings
from tests.support.api import Served, row
from tests.support.openapi_document import openapi_document
from tests.support.tus_requests import begun
from trainkit.spec.problems import RULES as BROKEN_SCHEMA

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
    unsupported_method,
    allow_header_conformance,
]
for binary in (
    *("application/offset+octet-stream", "application/vnd.apache.parquet", "application/zip"),
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
):
    schemathesis.serializer.alias(binary, "application/octet-stream")
for text in ("text/tab-separated-values", "application/x-ndjson"):
    schemathesis.serializer.alias(text, "text/plain")
NEED_A_WORKER = ("predict", "evaluate", "preview.png", "init-report")
SCHEMA_CODES = frozenset(BROKEN_SCHEMA) - {"value_error"} | {
    *("missing_field", "missing_kind", "unknown_field", "unknown_kind", "unknown_value", "wrong_type"),
    *("unknown_parameter", "not_an_object"),
}
"""Codes of errors that a JSON schema can say: no request that keeps to the schema gets one."""
FREE_FORM = ("POST /v1/experiments", "POST /v1/jobs/{job_id}/fork")
"""A job spec in part: the whole that comes of it is checked, and the schema of the part cannot say what it lacks."""
IN_SOAK = settings.get_current_profile_name() == "soak"
OPAQUE_TEXT = frozenset({"columns", "fields", "missing"})
"""Parts of a query or form that hold JSON, or names of fields: the schema of a text cannot say what is in it."""
EXAMPLES = 200 if IN_SOAK else 6
"""Requests of one route in one mode; `make soak` sends 100,000 in all."""
SAMPLED = None if IN_SOAK else 6
"""Of the boundary values that schemathesis enumerates, so many of one route; None: all, tens of thousands."""
SAME_BODY = ("/v1/jobs", "/v1/specs:init-report")
"""Their body is that of `/v1/specs:validate`, and the enumeration of its boundary values takes longest."""
CHAINS = 200 if IN_SOAK else 8
LEAST_CASES = 100_000 if IN_SOAK else 2_000
GENERATED = settings(
    deadline=None,
    derandomize=not IN_SOAK,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
sent: Counter[str] = Counter()


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, migrated_sqlite: Path
) -> Iterator[Served]:
    home = tmp_path_factory.mktemp("fuzz")
    if request.param == "sqlite":
        shutil.copyfile(migrated_sqlite, home / "trainkit.db")
        url = f"sqlite:///{home}/trainkit.db"
    else:
        url = request.getfixturevalue("new_postgres_database")(template=request.getfixturevalue("migrated_postgres"))
    app = create_app(
        Settings.from_env(
            {
                "TRAINKIT_HOME": str(home),
                "TRAINKIT_DATABASE_URL": url,
                "TRAINKIT_BROKER_URL": "memory://",
                "TRAINKIT_PREDICT_SECONDS": "0.1",
                "TRAINKIT_WEBHOOK_ALLOW": "127.0.0.1",
                "TRAINKIT_SECRET_KEY": b64encode(bytes(32)).decode(),
                "TRAINKIT_MAX_REQUESTS_PER_MINUTE": "0",  # the soak sends more
                "TRAINKIT_MAX_WRONG_KEYS_PER_MINUTE": "0",
            }
        )
    )
    service = Served(app, TestClient(app), app.state.context)
    service.client = service.client_for("default")
    yield service
    app.state.context.engine.dispose()


def every_operation() -> Iterator[tuple[str, str]]:
    """(method, path) of the OpenAPI document. A stream has no end to wait for: it has tests of its own."""
    for path, method, _ in operations(openapi_document()):
        if not path.endswith("/stream"):
            yield method, path


OPERATIONS = list(every_operation())
EACH_OPERATION = pytest.mark.parametrize(("method", "path"), OPERATIONS, ids=lambda value: str(value).replace("/", "|"))


@pytest.fixture(scope="module")
def known(served: Served) -> dict[str, str]:
    """Ids of things that are there, so that requests reach beyond a 404."""
    job = served.submit()
    claimed = served.claim()
    served.say(claimed, "one", "two")
    served.append(claimed, row("loss", 1.0), row("loss", float("nan"), 2), row("accuracy", 0.5))
    model = served.finish(claimed)
    assert model is not None
    upload = begun(served.client, 1000).rsplit("/", 1)[1]
    webhook = served.client.post("/v1/webhooks", json={"url": "http://127.0.0.1:9/"}).json()["id"]
    mirror = served.client.post("/v1/mirrors", json={"kind": "mlflow", "url": "http://127.0.0.1:9"}).json()["id"]
    served.client.post(f"/v1/mirrors/{mirror}/backfill").raise_for_status()
    dataset = served.job(job)["dataset"]["id"]
    plan = {"kind": "kfold", "folds": 2, "spec": {"dataset": dataset, "model": "mlp"}}
    experiment = served.client.post("/v1/experiments", json=plan).json()["id"]
    return {
        "job_id": job,
        "model": model,
        "dataset": dataset,
        "upload_id": upload,
        "webhook_id": webhook,
        "mirror_id": mirror,
        "delivery_id": served.client.post(f"/v1/webhooks/{webhook}/test").json()["id"],
        "experiment_id": experiment,
        "group": experiment,
        "project_id": served.client.get("/v1/projects").json()["data"][0]["id"],
    }


@pytest.fixture(scope="module")
def schema(served: Served) -> Any:
    document = copy.deepcopy(served.app.openapi())
    for _, _, operation in operations(document):
        operation.pop("security", None)  # every request has the key; test_auth.py has those without
    served.app.openapi_schema = document
    loaded = schemathesis.openapi.from_asgi("/openapi.json", served.app, headers=dict(served.client.headers))
    # HTTP has statuses of its own for too long an address and head, tus one for another version of it, and a generated
    # request may have left the project a quota of nothing
    loaded.config.checks.negative_data_rejection.expected_statuses += ["412", "413", "414", "431"]
    return loaded


@pytest.fixture(scope="module")
def ask(served: Served, known: dict[str, str]) -> Callable[[Case], None]:
    """A function that sends one request and checks what is answered."""
    headers = {"Authorization": served.client.headers["Authorization"]}

    def send(case: Case) -> None:
        fields = case.body if case.media_type == "multipart/form-data" and isinstance(case.body, dict) else {}
        if any(value in ("", [], {}) for value in fields.values()):
            return  # an empty field of a form is one that was left out, whatever its values are
        use_known(case, known)
        if isinstance(case.body, dict) and case.path.startswith("/v1/projects"):
            case.body.pop("archived", None)  # an archived project would refuse what comes after
        sent[case.operation.label] += 1
        check(case, case.call(headers=headers))

    return send


def use_known(case: Case, known: dict[str, str]) -> None:
    """Put ids of things that are there into valid places of a request."""
    components = case.meta.components if case.meta else {}
    path = components.get(ParameterLocation.PATH)
    if case.method != "DELETE" and (path is None or path.mode is GenerationMode.POSITIVE):
        case.path_parameters.update({name: known[name] for name in case.path_parameters or {} if name in known})
    for body in (case.body, case.body.get("spec") if isinstance(case.body, dict) else None):
        if isinstance(body, dict) and isinstance(body.get("dataset"), str) and 1 <= len(body["dataset"]) <= 128:
            body["dataset"] = known["dataset"]


def check(case: Case, response: Any) -> None:
    """Check an answer against the document."""
    checks = list(CHECKS)
    if response.status_code == 503 and case.operation.path.endswith(NEED_A_WORKER):
        checks.remove(not_a_server_error)
    case.validate_response(response, checks=checks)
    if case.meta is None or not case.meta.generation.mode.is_positive or case.operation.label in FREE_FORM:
        return
    if response.status_code in (400, 415, 422):
        errors = json.loads(response.content)["errors"]
        codes = {error["code"] for error in errors if not {*error["pointer"].split("/")} & OPAQUE_TEXT}
        shown = f"{case.as_curl_command()}\n{response.text[:2000]}"
        assert not codes & SCHEMA_CODES, f"the request keeps to its schema, and is refused as if it did not:\n{shown}"


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@EACH_OPERATION
def test_generated_requests(
    schema: Any, ask: Callable[[Case], None], method: str, path: str, mode: GenerationMode
) -> None:
    run = given(schema[path][method.upper()].as_strategy(generation_mode=mode))(ask)
    try:
        settings(GENERATED, max_examples=EXAMPLES)(run)()
    except Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE, "a route that takes nothing has no wrong input"


@EACH_OPERATION
def test_boundary_values(schema: Any, served: Served, ask: Callable[[Case], None], method: str, path: str) -> None:
    """Each keyword of each schema at its boundary and beyond, one at a time."""
    if not IN_SOAK and (served.context.engine.dialect.name != "sqlite" or path in SAME_BODY):
        pytest.skip("thousands of values to enumerate: in `make soak`")
    operation = schema[path][method.upper()]
    generation = schema.config.generation_for(operation=operation)
    cases = list(
        schema.iter_coverage_cases(operation, generation_modes=list(GenerationMode), generation_config=generation)
    )
    step = 1 if SAMPLED is None else max(1, len(cases) // SAMPLED)
    for case in itertools.islice(cases, 0, None, step):
        ask(case)


def test_chains_of_requests(schema: Any, served: Served, known: dict[str, str]) -> None:
    """What one answer names is used by the next requests: created, read, changed, deleted, used after that."""
    authorization = {"Authorization": served.client.headers["Authorization"]}

    class Chain(schema.as_state_machine()):  # type: ignore[misc]
        def before_call(self, case: Case) -> None:
            for body in (case.body, case.body.get("spec") if isinstance(case.body, dict) else None):
                if isinstance(body, dict) and "dataset" in body:
                    body["dataset"] = known["dataset"]
            sent[case.operation.label] += 1

        def get_call_kwargs(self, case: Case) -> dict[str, Any]:
            return {"headers": authorization}

        def validate_response(self, response: Any, case: Case, **_: Any) -> None:
            check(case, response)

    Chain.run(settings=settings(GENERATED, max_examples=CHAINS, stateful_step_count=8))


def test_so_many_requests_were_sent(request: pytest.FixtureRequest) -> None:
    ran = [item for item in request.session.items if item.path == request.path]
    if len(ran) < 2 * 3 * len(OPERATIONS):
        pytest.skip("only some of the tests of this file run")
    assert sum(sent.values()) >= LEAST_CASES
    assert min(sent[f"{method.upper()} {path}"] for method, path in OPERATIONS) >= 5
