"""What the audit log tells of sign-ins: who, from where, with which request, and why somebody was not let in."""

from __future__ import annotations

import time
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.audit import repository
from service.audit import service as audit
from service.audit.service import exported
from service.database import reading
from service.sign_in_cookies import PENDING_COOKIE, SESSION_COOKIE
from tests.support.api import Served, assert_problem
from tests.support.oidc_provider import RunningProvider
from tests.support.sign_in import SAME_ORIGIN, begin, browser, callback, claims, sign_in, sign_in_later
from tests.support.tus_requests import VERSION, begun

pytestmark = pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)


def entries(service: Served, after: int = 0) -> list[dict[str, Any]]:
    """All entries after a seq, sealed, oldest first; the chain is verified."""
    service.app.state.refusals.write(service.sessions)
    audit.seal(service.sessions)
    with reading(service.sessions) as session:
        audit.verify(session)
        return [exported(row) for row in repository.walk(session, after)]


def shown(entry: dict[str, Any]) -> tuple[Any, ...]:
    return entry["operation"], entry["resource"]["kind"], entry["before"] is None, entry["after"] is None


def test_a_sign_in_and_a_sign_out_are_told_with_the_person(service: Served, provider: RunningProvider) -> None:
    provider.set_user("eve", name="Eve", email="eve@example.org", groups=["ml-team"])
    last = entries(service)[-1]["seq"] if entries(service) else 0
    client = browser(service)
    answer = callback(client, provider.sign_in(begin(client), "eve"))
    user, token = client.get("/v1/me").json()["user"]["id"], client.cookies[SESSION_COOKIE]
    found = entries(service, last)
    assert [shown(one) for one in found] == [
        ("finishSignIn", "user", True, False),
        ("finishSignIn", "member", True, False),
        ("finishSignIn", "session", True, False),
    ]
    for one in found:
        assert (one["actor"]["kind"], one["actor"]["id"], one["outcome"]) == ("user", user, "succeeded")
        assert (one["request_id"], one["client"]["address"]) == (answer.headers["x-request-id"], "testclient")
    created, member, session = found
    assert (created["resource"]["id"], created["after"]["email"], created["project"]) == (user, "eve@example.org", None)
    vision = client.get("/v1/me").json()["project"]["id"]
    assert (member["after"]["role"], member["after"]["source"], member["project"]) == ("developer", "group", vision)
    assert session["after"]["user_id"] == user

    out = client.post("/v1/auth/logout", headers=SAME_ORIGIN)
    (ended,) = entries(service, session["seq"])
    assert shown(ended) == ("signOut", "session", False, True)
    assert (ended["resource"], ended["before"]) == (session["resource"], {"user_id": user})
    assert (ended["actor"]["id"], ended["request_id"]) == (user, out.headers["x-request-id"])
    assert token not in str(entries(service))


def test_a_role_that_a_group_gives_or_takes_is_told(service: Served, provider: RunningProvider) -> None:
    provider.set_user("fay", name="Fay", groups=["leads"])
    first = sign_in(service, provider, "fay")
    last = entries(service)[-1]["seq"]
    sign_in_later(service, provider, "fay")
    assert [shown(one) for one in entries(service, last)] == [("finishSignIn", "session", True, False)], "nothing new"
    last = entries(service)[-1]["seq"]
    provider.set_user("fay", name="Fay", groups=["ml-team", "platform"])
    sign_in_later(service, provider, "fay")
    found = {one["resource"]["kind"]: one for one in entries(service, last) if one["after"] is not None}
    assert found["user"]["before"] == {"operator": False}
    assert found["user"]["after"] == {"operator": True}
    assert (found["member"]["before"], found["member"]["after"]) == ({"role": "admin"}, {"role": "developer"})
    (lost,) = [one for one in entries(service, last) if one["after"] is None]
    assert (lost["resource"]["kind"], lost["before"]["role"]) == ("member", "viewer")
    assert {one["actor"]["id"] for one in entries(service, last)} == {first.get("/v1/me").json()["user"]["id"]}


def test_a_token_s_new_claims_are_told_beside_what_the_request_does(service: Served, provider: RunningProvider) -> None:
    """The bytes of an upload leave no change in the database: the entry of the request must be there all the same."""
    now = int(time.time())
    bearer = {"Authorization": f"Bearer {provider.sign(claims(provider, sub='gus', iat=now - 20))}"}
    client = TestClient(service.app, headers=bearer)
    where, last = begun(client, 10), 0
    last = entries(service)[-1]["seq"]
    client.headers["Authorization"] = f"Bearer {provider.sign(claims(provider, sub='gus', name='Gus', iat=now - 10))}"
    headers = {**VERSION, "Content-Type": "application/offset+octet-stream", "Upload-Offset": "0"}
    sent = client.patch(where, headers=headers, content=b"abc")
    assert sent.status_code == 204, sent.text
    renamed, patched = entries(service, last)
    assert (renamed["resource"]["kind"], renamed["after"]) == ("user", {"name": "Gus"})
    assert renamed["actor"]["id"] == renamed["resource"]["id"] == patched["actor"]["id"]
    assert (patched["operation"], patched["status"]) == ("patchUpload", 204)
    assert {one["request_id"] for one in (renamed, patched)} == {sent.headers["x-request-id"]}


def test_who_is_not_let_in_is_told_with_the_reason(service: Served, provider: RunningProvider) -> None:
    provider.set_user("hal", groups=["ml-team"])
    user = sign_in(service, provider, "hal").get("/v1/me").json()["user"]["id"]
    last = entries(service)[-1]["seq"]
    client = browser(service)
    back = provider.sign_in(begin(client), "hal")
    pending = client.cookies[PENDING_COOKIE]
    assert callback(client, back).status_code == 302
    client.cookies.set(PENDING_COOKIE, pending)
    again = callback(client, back)
    assert_problem(again, 400, "sign_in_failed")
    assert_problem(callback(client, f"{back}&error=access_denied"), 403, "sign_in_refused")
    operator = service.client_for("vision", "operator")
    assert operator.patch(f"/v1/users/{user}", json={"disabled": True}).status_code == 200
    client = browser(service)
    assert_problem(callback(client, provider.sign_in(begin(client), "hal")), 403, "user_disabled")
    expired = provider.sign(claims(provider, aud="another"))
    bearer = TestClient(service.app, headers={"Authorization": f"Bearer {expired}"})
    assert_problem(bearer.get("/v1/jobs"), 401, "key_invalid")
    found = {one["code"]: one for one in entries(service, last) if one["outcome"] == "denied"}
    assert set(found) == {"sign_in_failed", "sign_in_refused", "user_disabled", "key_invalid"}
    failed = found["sign_in_failed"]
    assert (failed["operation"], failed["status"], failed["actor"]["kind"]) == ("finishSignIn", 400, "anonymous")
    assert failed["request_id"] == again.headers["x-request-id"]
    assert "invalid_grant" in failed["reason"]
    assert "access_denied" in found["sign_in_refused"]["reason"]
    assert (found["user_disabled"]["actor"]["kind"], found["user_disabled"]["actor"]["id"]) == ("user", user)
    assert "aud" in found["key_invalid"]["reason"]
    text = str(entries(service))
    assert not [one for one in (expired, pending, back.split("code=")[1].split("&")[0]) if one in text]
    listed = service.client_for("vision", "operator").get("/v1/audit?outcome=denied").json()["data"]
    assert failed["reason"] in [one["reason"] for one in listed]
