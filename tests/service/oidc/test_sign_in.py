"""Sign-in of browsers, end to end: the service, a provider in a process of its own, and all redirects between them."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest
from sqlalchemy import select, update

from service.database import db_now
from service.sign_in_cookies import ID_TOKEN_COOKIE, PENDING_COOKIE, SESSION_COOKIE
from service.users.service import hash_token
from service.users.tables import BrowserSession
from tests.support.api import Served, assert_problem
from tests.support.oidc_provider import RunningProvider
from tests.support.sign_in import HOST, SAME_ORIGIN, begin, browser, callback, sign_in, sign_in_later

pytestmark = pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)


def test_a_person_signs_in_works_and_signs_out(service: Served, provider: RunningProvider) -> None:
    provider.set_user("ada", name="Ada Lovelace", email="Ada@Example.org", groups=["ml-team", "other"])
    client = browser(service)
    assert_problem(client.get("/v1/me"), 401, "key_missing")
    url = begin(client, "?return_to=/v1/jobs%3Fstate%3Drunning")
    query = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
    assert (query["response_type"], query["code_challenge_method"]) == ("code", "S256")
    assert query["redirect_uri"] == f"{HOST}/v1/auth/callback"
    assert len({query["state"], query["nonce"], query["code_challenge"]}) == 3
    back = callback(client, provider.sign_in(url, "ada"))
    assert (back.status_code, back.headers["location"]) == (302, "/v1/jobs?state=running")
    (cookie,) = (one for one in back.headers.get_list("set-cookie") if one.startswith(f"{SESSION_COOKIE}="))
    assert {part.strip().lower() for part in cookie.split(";")[1:]} == {
        *("path=/", "secure", "httponly", "samesite=lax", "max-age=43200")
    }
    assert PENDING_COOKIE not in client.cookies
    me = client.get("/v1/me").json()
    assert (me["user"]["name"], me["user"]["email"], me["user"]["kind"]) == (
        "Ada Lovelace",
        "ada@example.org",
        "person",
    )
    assert (me["project"]["name"], me["role"], me["operator"], me["key"]) == ("vision", "developer", False, None)
    assert client.put("/v1/datasets?name=d", content=b"x", headers=SAME_ORIGIN).status_code == 201
    assert_problem(client.get("/v1/members"), 403, "forbidden")
    token = client.cookies[SESSION_COOKIE]
    with service.sessions() as session:
        assert session.scalars(select(BrowserSession.token_hash)).all() == [hash_token(token)]
    assert client.post("/v1/auth/logout", headers=SAME_ORIGIN).status_code == 204
    assert SESSION_COOKIE not in client.cookies
    client.cookies.set(SESSION_COOKIE, token)
    assert_problem(client.get("/v1/me"), 401, "session_ended")


def test_a_signed_in_browser_writes_from_this_origin_only(service: Served, provider: RunningProvider) -> None:
    provider.set_user("ada", groups=["ml-team"])
    client = sign_in(service, provider, "ada")
    for headers in (
        {},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "https://["},
        {"Origin": f"{HOST}.evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": HOST},
    ):
        answer = client.put("/v1/datasets?name=d", content=b"x", headers=headers)
        assert_problem(answer, 403, "cross_origin_refused")
        assert client.get("/v1/jobs", headers=headers).status_code == 200
    for headers in (SAME_ORIGIN, {"Sec-Fetch-Site": "same-origin"}):
        assert client.put("/v1/datasets?name=d", content=b"x", headers=headers).status_code in (200, 201)
    key = {"Authorization": f"Bearer {service.key('vision', 'developer')}"}
    assert client.put("/v1/datasets?name=e", content=b"y", headers=key).status_code == 201, (
        "a key decides, not the cookie"
    )


def test_a_state_of_another_browser_or_of_none_is_refused(service: Served, provider: RunningProvider) -> None:
    first, second = browser(service), browser(service)
    back = provider.sign_in(begin(first), "ada")
    for client in (second, browser(service)):
        assert_problem(callback(client, back), 400, "sign_in_failed")
    begin(second)
    assert_problem(callback(second, back), 400, "sign_in_failed")
    query = parse_qs(urlsplit(back).query)
    for changes in ({"state": "x"}, {"state": ""}, {"code": ""}, {"iss": "https://evil.example"}):
        sent = urlencode({**{name: values[0] for name, values in query.items()}, **changes})
        assert_problem(callback(first, f"{HOST}/v1/auth/callback?{sent}"), 400, "sign_in_failed")
    assert SESSION_COOKIE not in [*first.cookies, *second.cookies]
    assert callback(first, f"{back}&session_state=of-the-provider").status_code == 302


def test_a_code_is_worth_one_sign_in(service: Served, provider: RunningProvider) -> None:
    client = browser(service)
    back = provider.sign_in(begin(client), "ada")
    pending = client.cookies[PENDING_COOKIE]
    assert callback(client, back).status_code == 302
    assert_problem(callback(client, back), 400, "sign_in_failed")  # the browser has forgotten it
    client.cookies.set(PENDING_COOKIE, pending)
    answer = assert_problem(callback(client, back), 400, "sign_in_failed")  # the provider knows better
    assert "invalid_grant" in answer["detail"]


def test_a_stolen_code_is_worth_nothing_without_the_verifier(service: Served, provider: RunningProvider) -> None:
    """The thief begins a sign-in of his own and brings the victim's code: PKCE binds it to the victim's browser."""
    victim, thief = browser(service), browser(service)
    stolen = parse_qs(urlsplit(provider.sign_in(begin(victim), "ada")).query)["code"][0]
    state = parse_qs(urlsplit(begin(thief)).query)["state"][0]
    query = urlencode({"code": stolen, "state": state})
    answer = assert_problem(callback(thief, f"{HOST}/v1/auth/callback?{query}"), 400, "sign_in_failed")
    assert "invalid_grant" in answer["detail"]


def test_who_says_no_is_not_signed_in(service: Served, provider: RunningProvider) -> None:
    client = browser(service)
    back = provider.sign_in(begin(client), "ada", deny=True)
    state = parse_qs(urlsplit(begin(client)).query)["state"][0]
    error = parse_qs(urlsplit(back).query)["error"][0]
    answer = callback(client, f"{HOST}/v1/auth/callback?{urlencode({'error': error, 'state': state})}")
    assert "access_denied" in assert_problem(answer, 403, "sign_in_refused")["detail"]


@pytest.mark.parametrize("place", ["//evil.example", "https://evil.example", "/\\evil.example", "/a\\b", "", "/a b"])
def test_a_sign_in_returns_to_this_service_only(service: Served, place: str) -> None:
    answer = browser(service).get("/v1/auth/login", params={"return_to": place})
    assert_problem(answer, 422, "invalid_request")


def test_groups_count_anew_at_the_next_sign_in(service: Served, provider: RunningProvider) -> None:
    provider.set_user("bob", name="Bob", groups=["leads", "platform"])
    client = sign_in(service, provider, "bob")
    me = client.get("/v1/me").json()
    assert {one["name"]: one["role"] for one in me["projects"]} == {"vision": "admin", "speech": "viewer"}
    assert (me["operator"], me["project"], me["role"]) == (True, None, None), "there is a choice"
    document = assert_problem(client.get("/v1/jobs"), 422, "no_project")
    assert "speech, vision" in document["detail"]
    for name in ("vision", me["projects"][1]["id"]):
        assert client.get("/v1/jobs", headers={"Trainkit-Project": name}).status_code == 200
    assert client.get("/v1/keys", headers={"Trainkit-Project": "vision"}).status_code == 200
    assert client.get("/v1/users").status_code == 200
    provider.set_user("bob", name="Bob", groups=["ml-team"])
    again = sign_in_later(service, provider, "bob")
    for one in (again, client):
        me = one.get("/v1/me").json()
        assert ({one["name"]: one["role"] for one in me["projects"]}, me["operator"]) == (
            {"vision": "developer"},
            False,
        )
    assert_problem(client.get("/v1/users"), 403, "forbidden")


def test_a_session_ends_by_its_time_and_by_disabling_the_user(service: Served, provider: RunningProvider) -> None:
    provider.set_user("cleo", groups=["ml-team"])
    client = sign_in(service, provider, "cleo")
    other = sign_in(service, provider, "cleo")
    with service.sessions.begin() as session:
        ended = hash_token(client.cookies[SESSION_COOKIE])
        session.execute(
            update(BrowserSession).where(BrowserSession.token_hash == ended).values(expires_at=db_now(plus=-1))
        )
    assert_problem(client.get("/v1/me"), 401, "session_ended")
    user = other.get("/v1/me").json()["user"]["id"]
    operator = service.client_for("vision", "operator")
    assert operator.patch(f"/v1/users/{user}", json={"disabled": True}).json()["disabled_at"] is not None
    assert_problem(other.get("/v1/me"), 401, "session_ended")
    client = browser(service)
    assert_problem(callback(client, provider.sign_in(begin(client), "cleo")), 403, "user_disabled")
    assert operator.patch(f"/v1/users/{user}", json={"disabled": False}).json()["disabled_at"] is None
    assert sign_in(service, provider, "cleo").get("/v1/me").status_code == 200


def test_a_person_without_a_role_is_told_what_to_do(service: Served, provider: RunningProvider) -> None:
    provider.set_user("dora", name="Dora", email="dora@example.org")
    client = sign_in(service, provider, "dora")
    assert client.get("/v1/me").json()["projects"] == []
    document = assert_problem(client.get("/v1/jobs"), 403, "forbidden")
    assert "no role" in document["detail"]
    added = service.client.post("/v1/members", json={"email": "dora@example.org", "role": "viewer"})
    assert added.status_code == 201, added.text
    assert client.get("/v1/jobs").status_code == 200


def test_cookies_that_this_service_has_not_written_are_no_sign_in(service: Served, provider: RunningProvider) -> None:
    back = provider.sign_in(begin(browser(service)), "ada")
    for value in ("", "x", "bm8=", "eyJzdGF0ZSI6IDF9", "W1tbW10="):
        client = browser(service)
        client.cookies.set(PENDING_COOKIE, value)
        assert_problem(callback(client, back), 400, "sign_in_failed")
        client.cookies.set(SESSION_COOKIE, value)
        assert client.get("/v1/me").status_code == 401


def test_while_the_provider_is_away_keys_work_and_a_sign_in_waits(service: Served) -> None:
    oidc_provider = service.app.state.oidc_provider
    oidc_provider.config = replace(oidc_provider.config, issuer="http://127.0.0.1:9")
    answer = browser(service).get("/v1/auth/login")
    assert_problem(answer, 503, "sign_in_unavailable")
    assert answer.headers["retry-after"] == "30"
    assert service.client.get("/v1/jobs").status_code == 200


def test_guessed_sessions_count_as_wrong_keys_and_a_right_one_is_let_in(
    service: Served, provider: RunningProvider
) -> None:
    provider.set_user("ada", groups=["ml-team"])
    signed_in, guesser = sign_in(service, provider, "ada"), browser(service)
    for number in range(3 * service.context.settings.max_wrong_keys_per_minute):
        guesser.cookies.set(SESSION_COOKIE, f"guess-{number}")
        answer = guesser.get("/v1/me")
        if answer.status_code == 429:  # some are given back while the guesser is slow
            break
    assert_problem(answer, 429, "too_many_wrong_keys")
    assert signed_in.get("/v1/me").status_code == 200


def test_groups_that_only_userinfo_tells_count(service: Served, provider: RunningProvider) -> None:
    hidden = ["groups", "name", "email"]
    provider.set_user("lou", name="Lou", email="lou@example.org", groups=["leads"], only_userinfo=hidden)
    me = sign_in(service, provider, "lou").get("/v1/me").json()
    assert (me["user"]["name"], me["user"]["email"]) == ("Lou", "lou@example.org")
    assert {one["name"]: one["role"] for one in me["projects"]} == {"vision": "admin", "speech": "viewer"}


def test_a_sign_out_goes_on_to_the_provider(service: Served, provider: RunningProvider) -> None:
    provider.set_user("mia", groups=["ml-team"])
    client = sign_in(service, provider, "mia")
    (cookie,) = (one for one in client.cookies.jar if one.name == ID_TOKEN_COOKIE)
    assert (cookie.path, cookie.secure) == ("/v1/auth/logout", True)
    assert_problem(client.post("/v1/auth/logout?at_provider=true"), 403, "cross_origin_refused")
    answer = client.post("/v1/auth/logout?at_provider=true", headers=SAME_ORIGIN)
    assert answer.status_code == 303
    where = urlsplit(answer.headers["location"])
    query = {name: values[0] for name, values in parse_qs(where.query).items()}
    assert f"{where.scheme}://{where.netloc}" == provider.url
    assert query == {
        "client_id": "trainkit",
        "post_logout_redirect_uri": f"{HOST}/docs",
        "id_token_hint": cookie.value,
    }
    assert {one.name for one in client.cookies.jar} == set()
    assert_problem(client.get("/v1/me"), 401, "key_missing")
    assert httpx.get(answer.headers["location"]).status_code == 200, "the provider's own page"


def test_a_sign_out_ends_the_session_here_when_the_provider_is_away(service: Served, provider: RunningProvider) -> None:
    provider.set_user("mia", groups=["ml-team"])
    client = sign_in(service, provider, "mia")
    away = service.app.state.oidc_provider
    away.config, away._metadata = replace(away.config, issuer="http://127.0.0.1:9"), None
    answer = client.post("/v1/auth/logout?at_provider=true", headers=SAME_ORIGIN)
    assert (answer.status_code, answer.headers["location"]) == (303, f"{HOST}/docs")
    assert_problem(client.get("/v1/me"), 401, "key_missing")


def test_a_link_and_an_event_source_choose_a_project_without_a_header(
    service: Served, provider: RunningProvider
) -> None:
    provider.set_user("bob", name="Bob", groups=["leads", "platform"])
    client = sign_in(service, provider, "bob")
    member = service.client_for("vision", "developer", "operator")
    job = service.submit(member)
    service.finish(service.claim())
    chosen = "trainkit-project=vision"
    assert [one["id"] for one in client.get(f"/v1/jobs?{chosen}&state=succeeded").json()["data"]] == [job]
    assert client.get("/v1/jobs?trainkit-project=speech").json()["data"] == []
    assert client.head(f"/v1/jobs?{chosen}").status_code == 200
    assert client.get(f"/v1/jobs/{job}/artifacts/spec.yaml?{chosen}").text.startswith("dataset:")
    stream = client.get(f"/v1/jobs/{job}/stream?{chosen}", headers={"Accept": "text/event-stream"})
    assert (stream.status_code, "event: end" in stream.text) == (200, True)
    # the header of the same name chooses the same; another is refused, and not one of them taken
    header = {"Trainkit-Project": "vision"}
    assert client.get(f"/v1/jobs?{chosen}", headers=header).status_code == 200
    for several in (f"{chosen}&trainkit-project=speech", "trainkit-project=speech"):
        document = assert_problem(client.get(f"/v1/jobs?{several}", headers=header), 422, "invalid_request")
        assert "'vision', 'speech'" in document["detail"]


def test_a_parameter_chooses_no_project_for_a_write_or_a_stranger(service: Served, provider: RunningProvider) -> None:
    provider.set_user("cleo", groups=["ml-team"])
    client = sign_in(service, provider, "cleo")
    service.key("secret")
    assert_problem(client.get("/v1/jobs?trainkit-project=secret"), 404, "not_found")
    assert_problem(client.get("/v1/jobs?trainkit-project="), 404, "not_found")
    provider.set_user("bob", name="Bob", groups=["leads", "platform"])
    several = sign_in(service, provider, "bob")
    written = several.post("/v1/jobs?trainkit-project=vision", json={}, headers={"Sec-Fetch-Site": "same-origin"})
    assert "trainkit-project" in assert_problem(written, 422, "invalid_request")["detail"]
