"""Messages to people: chats in Slack's form, mail by SMTP; each threshold and each end is told once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from service.settings import Settings
from tests.support.api import Served, assert_problem, row
from tests.support.reverse_proxy import write_certificate
from tests.support.smtp_server import SmtpServer, smtp_server
from tests.support.webhook_receiver import deliveries, detail, hook, let_pass, receiving, send_due

HOSTILE = "x\r\nBcc: victim@example.org\r\n\r\n<!channel> <http://evil|ok> @all \u202e &"


@contextmanager
def mailing(
    settings: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch, scheme: str = "smtp", **changes: Any
) -> Iterator[tuple[Served, SmtpServer]]:
    """A service that sends mail by a server of its own, whose certificate it knows."""
    certificate = folder / "localhost.pem"
    write_certificate(certificate)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with smtp_server(certificate, from_start=scheme == "smtps") as server:
        url = f"{scheme}://ann:p%3Aw@localhost:{server.port}"
        mail = {"smtp_url": url, "mail_from": "trainkit@example.org", **changes}
        app = create_app(replace(settings, **mail))
        with TestClient(app):
            served = Served(app, TestClient(app), app.state.context)
            served.client = served.client_for("default")
            yield served, server
        app.state.context.engine.dispose()


def finish_one(service: Served, **fields: Any) -> str:
    job = service.submit(**fields)
    service.finish(service.claim())
    return job


def test_a_chat_is_told_of_ends_alone_and_cannot_be_tricked(service: Served) -> None:
    with receiving() as receiver:
        webhook = hook(service, receiver.url, format="slack")
        assert (webhook["format"], sorted(webhook["events"])) == (
            "slack",
            ["job.cancelled", "job.failed", "job.stopped", "job.succeeded"],
        )
        job = finish_one(service, name="digits-mlp", labels={"team": HOSTILE})
        send_due(service)
        (got,) = receiver.got
        assert list(got.payload) == ["text"]
        first, *lines = got.payload["text"].split("\n")
        assert first == "*digits-mlp succeeded*"
        assert lines[0] == "It went from running to succeeded: completed."
        assert f"Job: {job}" in lines
        (labels,) = (line for line in lines if line.startswith("Labels: "))
        assert "&lt;!channel&gt; &lt;http://evil|ok&gt; @\u200ball" in labels
        assert "\u202e" not in labels
        assert detail(service, deliveries(service, webhook["id"])[0])["payload"]["type"] == "job.succeeded"


def test_a_link_leads_to_the_page_where_the_address_is_known(settings: Settings) -> None:
    app = create_app(replace(settings, public_url="https://trainkit.example.org"))
    with TestClient(app), receiving() as receiver:
        served = Served(app, TestClient(app), app.state.context)
        served.client = served.client_for("default")
        hook(served, receiver.url, format="slack")
        job = finish_one(served)
        send_due(served)
        assert receiver.got[0].payload["text"].endswith(f"\nhttps://trainkit.example.org/ui/#/jobs/{job}")
    app.state.context.engine.dispose()


@pytest.mark.postgresql
@pytest.mark.parametrize(
    ("threshold", "values", "crossing", "text"),
    [
        ({"at_least": 0.9}, (0.8, 0.9, 0.95), 0.9, "val_accuracy>=0.9"),
        ({"above": 0.9}, (0.8, 0.9, 0.95), 0.95, "val_accuracy>0.9"),
        ({"at_most": 0.25}, (0.5, 0.25, 0.1), 0.25, "val_accuracy<=0.25"),
    ],
)
def test_a_threshold_is_told_once(
    service: Served, threshold: dict[str, float], values: tuple[float, ...], crossing: float, text: str
) -> None:
    with receiving() as receiver:
        hook(service, receiver.url, format="slack", thresholds=[{"metric": "val_accuracy", **threshold}])
        service.submit(name="digits")
        claimed = service.claim()
        for step, value in enumerate(values, 1):
            service.append(claimed, row("accuracy", value, step=step))
        service.finish(claimed)
        send_due(service)
        (got,) = receiver.got
        escaped = text.replace("<", "&lt;").replace(">", "&gt;")
        assert got.payload["text"].startswith(f"*digits: {escaped}*\nval_accuracy is {crossing} at step ")


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
def test_a_mail_goes_to_all_over_tls(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    with mailing(settings, tmp_path, monkeypatch, scheme) as (service, server):
        webhook = hook(service, "mailto:ann@example.org,bob@example.org")
        assert webhook["format"] == "email"
        job = finish_one(service, name="Zahlen π", labels={"team": HOSTILE})
        send_due(service)
        (mail,) = server.mails
        assert (mail.sender, mail.recipients) == ("trainkit@example.org", ("ann@example.org", "bob@example.org"))
        assert (mail.encrypted, mail.login) == (True, "ann:p:w")
        message = mail.message
        assert message["Subject"] == "[trainkit] Zahlen π succeeded"
        assert (message["Bcc"], message["Auto-Submitted"]) == (None, "auto-generated")
        (shown,) = deliveries(service, webhook["id"])
        assert message["Message-ID"] == f"<{shown['id']}@example.org>"
        assert (shown["state"], shown["attempts"]) == ("delivered", 1)
        assert f"\r\nJob: {job}\r\n" in message.get_content()
        assert detail(service, shown)["history"][0]["response"] == "accepted"


def test_a_hostile_name_adds_no_header(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of jobs may hold anything but what the spec refuses; here every character reaches the mail."""
    from service.outbox.tables import WebhookDelivery

    with mailing(settings, tmp_path, monkeypatch) as (service, server):
        hook(service, "mailto:ann@example.org")
        finish_one(service)
        with service.sessions.begin() as session:
            for delivery in session.query(WebhookDelivery):
                body = json.loads(delivery.body)
                body["data"]["job"]["name"] = HOSTILE * 3
                body["data"]["event"]["reason"] = "\r\n.\r\nMAIL FROM:<evil@example.org>"
                delivery.body = json.dumps(body)
        send_due(service)
        (mail,) = server.mails
        assert mail.recipients == ("ann@example.org",)
        message = mail.message
        assert sorted(message.keys()) == sorted(
            ["From", "To", "Subject", "Message-ID", "Date", "Auto-Submitted", "Content-Type", "MIME-Version"]
            + (["Content-Transfer-Encoding"] if "Content-Transfer-Encoding" in message else [])
        )
        assert message["Subject"].startswith("[trainkit] x Bcc: victim@example.org <!channel>")
        assert len(message["Subject"]) < 330


def test_a_mail_that_was_refused_is_sent_again(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with mailing(settings, tmp_path, monkeypatch) as (service, server):
        webhook = hook(service, "mailto:ann@example.org,bob@example.org")
        finish_one(service)
        server.data_answer = "451 try later"
        send_due(service)
        (shown,) = deliveries(service, webhook["id"])
        assert (shown["state"], shown["status_code"]) == ("pending", 451)
        assert shown["error"] == "the mail server answered 451 try later"
        server.data_answer, server.refused = "250 queued", {"bob@example.org"}
        let_pass(service)
        send_due(service)
        (shown,) = deliveries(service, webhook["id"])
        assert (shown["state"], shown["attempts"]) == ("delivered", 2), "ann has it: she gets it no second time"
        assert detail(service, shown)["history"][1]["response"] == "accepted, but for bob@example.org"
        assert [mail.recipients for mail in server.mails] == [("ann@example.org",)]


def test_nothing_is_sent_in_clear(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with mailing(settings, tmp_path, monkeypatch) as (service, server):
        server.offers_starttls = False
        webhook = hook(service, "mailto:ann@example.org")
        finish_one(service)
        send_due(service)
        (shown,) = deliveries(service, webhook["id"])
        assert (shown["state"], server.mails) == ("pending", [])
        assert "STARTTLS" in shown["error"]
        assert "p:w" not in shown["error"]


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("mailto:", "bad_address"),
        ("mailto:ann", "bad_address"),
        ("mailto:ann@example.org?bcc=x@example.org", "bad_address"),
        ("mailto:ann@example.org%0d%0aBcc:x@example.org", "bad_address"),
        ("mailto:ann@example.org\r\nBcc: x@example.org", "bad_address"),
        ("mailto:ann@elsewhere.org", "domain_not_allowed"),
        ("mailto:" + ",".join(f"a{n}@example.org" for n in range(11)), "too_many_addresses"),
    ],
)
def test_what_may_not_be_mailed_to_is_refused(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, code: str
) -> None:
    with mailing(settings, tmp_path, monkeypatch, mail_domains=("example.org",)) as (service, _):
        problem = assert_problem(service.client.post("/v1/webhooks", json={"url": url}), 422, "invalid_request")
        assert problem["errors"][0]["code"] == code


def test_without_a_mail_server_there_is_no_mail(service: Served) -> None:
    answer = service.client.post("/v1/webhooks", json={"url": "mailto:ann@example.org"})
    assert assert_problem(answer, 422, "invalid_request")["errors"][0]["code"] == "no_mail"


def test_format_and_address_go_together(service: Served) -> None:
    for body in ({"url": "http://127.0.0.1:9/", "format": "email"},):
        problem = assert_problem(service.client.post("/v1/webhooks", json=body), 422, "invalid_request")
        assert problem["errors"][0]["code"] == "wrong_format"


@pytest.mark.parametrize(
    "changes", [{"smtp_url": "http://x"}, {"smtp_url": "smtp://"}, {"smtp_url": "smtp://h", "mail_from": "a b"}]
)
def test_a_malformed_mail_server_stops_the_start(settings: Settings, changes: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="TRAINKIT_"):
        create_app(replace(settings, **changes))
