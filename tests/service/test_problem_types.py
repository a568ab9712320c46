"""Every code of an error is in the list, on the page that `type` leads to, and told apart where it matters."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update

from service.api_docs.errors_page import errors_page
from service.database import db_now
from service.errors import TITLES
from service.keys.tables import ApiKey
from service.problem_types import ERRORS_PATH, PROBLEM_TYPES, ProblemCode
from tests.support.api import Served, assert_problem

ROOT = Path(__file__).resolve().parents[2]
SQLITE = pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)


def texts_of_code() -> Iterator[tuple[str, bool]]:
    """Every string in the source, and whether it is the code of a problem."""
    for folder in ("service", "worker"):
        for path in (ROOT / folder).rglob("*.py"):
            if path.name == "problem_types.py":
                continue
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value, False
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "HttpProblem" and len(node.args) > 1:
                    code = node.args[1]
                    if isinstance(code, ast.Constant):
                        yield str(code.value), True


def test_the_list_holds_exactly_the_codes_in_use() -> None:
    """Mypy holds that nothing but a `ProblemCode` is used; this holds where nobody runs it, and finds what is left over."""
    found = list(texts_of_code())
    used, written = {text for text, is_code in found if is_code}, {text for text, _ in found}
    assert len(used) > 80
    assert used - set(PROBLEM_TYPES) == set()
    assert set(PROBLEM_TYPES) - written == set()
    assert set(get_args(ProblemCode)) == set(PROBLEM_TYPES)


def test_every_entry_says_what_to_do() -> None:
    for code, entry in PROBLEM_TYPES.items():
        assert re.fullmatch(r"[a-z][a-z0-9_]*", code)
        assert entry.meaning.endswith("."), code
        assert entry.hint.endswith("."), code
        assert entry.title[0].isupper(), code
        assert not entry.title.endswith("."), code
        assert set(entry.statuses) <= {*TITLES, 406}, code


def test_the_page_has_every_code_and_loads_only_its_style() -> None:
    page = errors_page().decode()
    assert re.findall(r'<section id="(\w+)">', page) == sorted(PROBLEM_TYPES)
    assert re.findall(r'(?:src|href)="([^#"][^"]*)"', page) == ["errors.css"]
    assert "<script" not in page
    assert "style=" not in page
    assert "`" not in page


@SQLITE
def test_a_type_leads_to_its_entry_without_a_key(service: Served) -> None:
    bare = TestClient(service.app)
    problems = [
        bare.get("/v1/jobs"),
        service.client.get("/nowhere"),
        service.client.get("/v1/jobs?limt=1"),
        service.client.post("/v1/jobs", json={"model": {}}),
        service.client.put("/v1/jobs"),
        service.client.post("/v1/jobs", content=b"{", headers={"Content-Type": "application/json"}),
    ]
    for answer in problems:
        address, _, fragment = answer.json()["type"].partition("#")
        page = bare.get(address)
        assert (address, page.status_code) == (ERRORS_PATH, 200)
        assert f'<section id="{fragment}">' in page.text
        assert fragment == answer.json()["code"]
    for address in (ERRORS_PATH, "/docs/errors.css"):
        headers = bare.get(address).headers
        assert "script-src 'self'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert bare.head(address).status_code == 200
    assert_problem(bare.get("/docs/nowhere"), 404, "not_found")


@SQLITE
def test_a_wrong_key_is_told_from_a_missing_one(service: Served) -> None:
    keys = {state: service.key("default", "viewer") for state in ("revoked", "expired", "both")}
    changes = {"revoked": {"revoked_at": db_now()}, "expired": {"expires_at": db_now(plus=-1)}}
    changes["both"] = {**changes["revoked"], **changes["expired"]}
    for state, change in changes.items():
        with service.sessions.begin() as session:
            session.execute(update(ApiKey).where(ApiKey.id == keys[state].split("_")[1]).values(**change))
    known, unknown = service.key("default", "viewer"), f"tk_{'0' * 8}_{'0' * 40}"
    other_secret = f"{keys['expired'][:-1]}{'a' if keys['expired'][-1] != 'a' else 'b'}"
    cases = {
        None: "key_missing",
        "": "key_malformed",
        known: "key_malformed",
        "Bearer": "key_malformed",
        "Basic dXNlcjpwYXNz": "key_malformed",
        f"Token {known}": "key_malformed",
        f'Bearer "{known}"': "key_malformed",
        f"Bearer {known[:20]}": "key_malformed",
        f"Bearer {unknown}": "key_invalid",
        f"Bearer {keys['revoked']}": "key_invalid",
        f"Bearer {keys['both']}": "key_invalid",
        # who guesses learns nothing about a key that has expired
        f"Bearer {other_secret}": "key_invalid",
        f"Bearer {keys['expired']}": "key_expired",
    }
    answers = {}
    for header, code in cases.items():
        answer = TestClient(service.app).get(
            "/v1/jobs", headers={"Authorization": header} if header is not None else {}
        )
        answers[header] = assert_problem(answer, 401, code)
        challenge = answer.headers["www-authenticate"]
        if code == "key_missing":
            assert challenge == 'Bearer realm="trainkit"'
        else:
            assert 'error="invalid_token"' in challenge
    # the answer for an unknown key and for a revoked one are the same
    same = [
        {name: value for name, value in answers[f"Bearer {key}"].items() if name != "request_id"}
        for key in (unknown, keys["revoked"], other_secret)
    ]
    assert same[0] == same[1] == same[2]


@SQLITE
def test_a_key_without_the_role_is_told_which_one(service: Served) -> None:
    answer = service.client_for("default", "viewer").post("/v1/jobs", json={})
    assert_problem(answer, 403, "forbidden")
    assert (
        answer.headers["www-authenticate"] == 'Bearer realm="trainkit", error="insufficient_scope", scope="developer"'
    )
