"""What is to end says so: in the document, and in every answer, with its dates."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Annotated

import pytest
from fastapi import APIRouter, FastAPI, Query
from fastapi.testclient import TestClient

from service.app import create_app
from service.deprecation import EXTENSION, Deprecation, deprecated, deprecated_field, of_operation, of_request
from service.openapi import describe, operations
from service.settings import Settings
from tests.support.api import Served

OLD = Deprecation(since=date(2027, 1, 1), sunset=date(2027, 7, 1), use="GET /v1/toys:list")
OLDER = Deprecation(since=date(2026, 12, 1), sunset=date(2027, 9, 1), use="`size`")
router = APIRouter(prefix="/v1/toys")


@router.get("", summary="Toys")
@deprecated(OLD)
def list_toys() -> list[str]:
    """As they come."""
    return ["ball"]


@router.get("/{toy_id}", summary="A toy")
def get_toy(toy_id: int, length: Annotated[str | None, Query(**deprecated_field(OLDER))] = None) -> str:
    return length or "ball"


@pytest.fixture
def toys(settings: Settings) -> Iterator[Served]:
    app: FastAPI = create_app(settings)
    app.include_router(router)
    service = Served(app, TestClient(app), app.state.context)
    service.client = service.client_for("default")
    yield service
    app.state.context.engine.dispose()


pytestmark = pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)


def test_every_answer_of_a_deprecated_operation_says_so(toys: Served) -> None:
    for method in ("GET", "HEAD"):
        headers = toys.client.request(method, "/v1/toys").headers
        assert headers["deprecation"] == "@1798761600"  # 2027-01-01
        assert headers["sunset"] == "Thu, 01 Jul 2027 00:00:00 GMT"
        assert headers["link"] == '</docs>; rel="deprecation"; type="text/html"'
    behind = TestClient(toys.app, client=("127.0.0.1", 1), headers={**toys.client.headers, "X-Forwarded-Prefix": "/a"})
    assert behind.get("/v1/toys", headers={"Host": "localhost"}).headers["link"].startswith("</a/docs>;")


def test_a_deprecated_parameter_says_so_when_it_is_sent(toys: Served) -> None:
    for query in ("?length=3", "?length=", "?x=1&l%65ngth=3"):
        headers = toys.client.get(f"/v1/toys/1{query}").headers
        assert (headers["deprecation"], headers["sunset"]) == ("@1796083200", "Wed, 01 Sep 2027 00:00:00 GMT"), query
    assert toys.client.get("/v1/toys/x?length=3").headers["deprecation"]  # 422
    for query in ("", "?lengths=1", "?x=length"):
        assert "deprecation" not in toys.client.get(f"/v1/toys/1{query}").headers, query
    assert "deprecation" not in toys.client.get("/v1/jobs?length=3").headers
    both = of_request(next(route for route in router.routes if route.endpoint is list_toys), b"length=3")  # type: ignore[attr-defined]
    assert both == [OLD]


def test_the_document_says_so(toys: Served) -> None:
    paths = describe(toys.app)["paths"]
    operation = paths["/v1/toys"]["get"]
    assert operation["deprecated"] is True
    assert {"Deprecation", "Sunset"} <= set(operation["responses"]["200"]["headers"])
    assert operation[EXTENSION] == {"since": "2027-01-01", "sunset": "2027-07-01", "use": "GET /v1/toys:list"}
    assert operation["description"].startswith(
        "Deprecated since 2027-01-01, ends on 2027-07-01. Use GET /v1/toys:list."
    )
    (length,) = [one for one in paths["/v1/toys/{toy_id}"]["get"]["parameters"] if one["name"] == "length"]
    assert length["deprecated"] is True
    assert length["schema"][EXTENSION]["sunset"] == "2027-09-01"
    assert "Use `size`." in length["description"]
    assert "deprecated" not in paths["/v1/jobs"]["get"]


def test_a_short_notice_is_refused(settings: Settings) -> None:
    with pytest.raises(ValueError, match="180 days"):
        Deprecation(since=date(2027, 1, 1), sunset=date(2027, 3, 1), use="something else")


def test_what_is_marked_as_deprecated_has_its_dates(service: Served) -> None:
    for path, method, operation in operations(service.app.openapi()):
        for marked in (operation, *operation.get("parameters", ())):
            if marked.get("deprecated"):
                found = marked.get(EXTENSION) or marked.get("schema", {}).get(EXTENSION)
                assert found, f"{method} {path}: use service.deprecation"
                assert date.fromisoformat(found["sunset"]) > date.fromisoformat(found["since"])
    assert of_operation(None) is None
