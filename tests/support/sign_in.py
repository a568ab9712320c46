"""Browsers that sign in at the provider's process, and the claims of its tokens."""

from __future__ import annotations

import time
from typing import Any

import httpx2
from fastapi.testclient import TestClient
from sqlalchemy import update

from service.database import db_now
from service.users.tables import User
from tests.support.api import Served
from tests.support.oidc_provider import RunningProvider

HOST = "https://trainkit.example"
SAME_ORIGIN = {"Origin": HOST}
MINUTE = 60


def browser(service: Served) -> TestClient:
    return TestClient(service.app, base_url=HOST, follow_redirects=False, raise_server_exceptions=False)


def begin(client: TestClient, query: str = "") -> str:
    """Ask to sign in; returns the provider's address."""
    answer = client.get(f"/v1/auth/login{query}")
    assert answer.status_code == 302, answer.text
    return str(answer.headers["location"])


def callback(client: TestClient, url: str) -> httpx2.Response:
    """Follow the provider's redirect back to the service."""
    assert url.startswith(f"{HOST}/v1/auth/callback?")
    answer: httpx2.Response = client.get(url.removeprefix(HOST))
    return answer


def sign_in(service: Served, provider: RunningProvider, subject: str, query: str = "") -> TestClient:
    client = browser(service)
    answer = callback(client, provider.sign_in(begin(client, query), subject))
    assert answer.status_code == 302, answer.text
    return client


def sign_in_later(service: Served, provider: RunningProvider, subject: str) -> TestClient:
    """Sign in with a token of a later second than the one before: a token tells its time in seconds."""
    with service.sessions.begin() as session:
        session.execute(update(User).values(claims_at=db_now(plus=-60)))
    return sign_in(service, provider, subject)


def claims(provider: RunningProvider, **changes: Any) -> dict[str, Any]:
    now = int(time.time())
    payload = {"iss": provider.url, "aud": "trainkit-api", "sub": "ada", "name": "Ada", "iat": now, "exp": now + MINUTE}
    return {name: value for name, value in {**payload, "groups": ["ml-team"], **changes}.items() if value is not None}
