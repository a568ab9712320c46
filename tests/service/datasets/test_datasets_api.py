"""Uploads: streamed, hashed, whole or not at all; versions, reports, deletion."""

from __future__ import annotations

import base64
import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import pytest
from sqlalchemy import event
from starlette.types import Message

from service.datasets import intake
from service.jobs import attempts, leases
from service.leases import StaleFence
from tests.support.api import FACTS, Served, error_of

BYTES = b"column,label\n1,a\n2,b\n"
SHA = hashlib.sha256(BYTES).hexdigest()


def files(service: Served) -> list[Path]:
    return [path for path in service.context.storage.root.rglob("*") if path.is_file()]


def upload(service: Served, name: str = "d", body: bytes = BYTES, **query: str) -> dict[str, Any]:
    answer = service.client.put("/v1/datasets", params={"name": name, **query}, content=body)
    assert answer.status_code == 201, answer.text
    shown: dict[str, Any] = answer.json()
    return shown


def check(service: Served, **facts: Any) -> str:
    """A data worker finds the oldest unchecked dataset good."""
    with service.sessions.begin() as session:
        claimed = intake.claim(session, "w", 30)
        assert claimed is not None
        intake.ready(session, claimed.claim, {**FACTS, **facts}, {"notes": ["n"]}, "prepared/x")
        return claimed.dataset_id


def test_a_raw_body_is_stored_by_its_hash(service: Served) -> None:
    answer = service.client.put("/v1/datasets?name=iris&target=label&filename=iris.csv", content=BYTES)
    shown = answer.json()
    assert answer.headers["location"] == f"/v1/datasets/{shown['id']}"
    assert (shown["name"], shown["version"], shown["state"], shown["target"]) == ("iris", 1, "validating", "label")
    assert (shown["sha256"], shown["bytes"]) == (SHA, len(BYTES))
    (stored,) = files(service)
    assert (stored.name, stored.read_bytes()) == (SHA, BYTES)
    assert service.client.get(f"/v1/datasets/{shown['id']}").json() == shown


def test_a_form_does_the_same(service: Served) -> None:
    answer = service.client.post(
        "/v1/datasets", files={"file": ("../../dir\\flowers.csv", BYTES)}, data={"kind": "table", "target": "label"}
    )
    shown = answer.json()
    assert (answer.status_code, shown["name"], shown["kind"], shown["sha256"]) == (201, "flowers", "table", SHA)
    named = service.client.post("/v1/datasets", files={"file": ("x.csv", BYTES)}, data={"name": "other"}).json()
    assert named["name"] == "other"
    with service.sessions.begin() as session:
        claimed = intake.claim(session, "w", 30)
    assert claimed is not None
    assert claimed.filename == "flowers.csv"


def test_a_name_has_versions_and_the_same_bytes_make_none(service: Served) -> None:
    first = upload(service)
    assert upload(service)["id"] == first["id"]
    second = upload(service, body=b"other bytes")
    assert (second["version"], second["name"]) == (2, "d")
    assert upload(service, "another")["version"] == 1
    assert len(files(service)) == 2, "bytes are stored once"


def test_many_at_once_get_versions_of_their_own(service: Served) -> None:
    with ThreadPoolExecutor(6) as pool:
        shown = list(pool.map(lambda n: upload(service, body=b"body %d" % (n % 3)), range(6)))
    by_hash = {s["sha256"]: s["version"] for s in shown}
    assert len(by_hash) == 3
    assert len({s["id"] for s in shown}) == len({(s["version"]) for s in shown})


def test_a_digest_is_checked(service: Served) -> None:
    good = base64.b64encode(hashlib.sha256(BYTES).digest()).decode()
    bad = base64.b64encode(hashlib.sha256(b"").digest()).decode()

    def put(digest: str) -> tuple[int, str]:
        headers = {"Content-Digest": digest}
        answer = service.client.put("/v1/datasets?name=d", content=BYTES, headers=headers)
        return answer.status_code, answer.json().get("code", "")

    assert put(f"sha-256=:{bad}:") == (400, "digest_mismatch")
    assert put("md5=:abc:") == (400, "digest_unknown")
    assert put("sha-256=:a:") == (400, "digest_unknown")
    assert files(service) == []
    assert put(f"sha-512=:xyz:, sha-256=:{good}:")[0] == 201


def test_what_is_too_large_or_empty_leaves_nothing(service: Served) -> None:
    limit = service.context.settings.max_upload_bytes

    def endless() -> Any:
        for _ in range(limit // 2**16 + 40):
            yield b"x" * 2**16

    for body in (b"x" * (limit + 1), endless()):
        answer = service.client.put("/v1/datasets?name=d", content=body)
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    answer = service.client.post("/v1/datasets", files={"file": ("x", b"x" * (limit + 1))})
    assert answer.status_code == 413
    answer = service.client.put("/v1/datasets?name=d", content=b"")
    assert (answer.status_code, answer.json()["code"]) == (422, "empty")
    assert files(service) == []
    assert service.client.get("/v1/datasets").json()["data"] == []


def test_a_client_that_goes_away_leaves_nothing(service: Served) -> None:
    messages: list[Message] = [
        {"type": "http.request", "body": b"x" * 1000, "more_body": True},
        {"type": "http.disconnect"},
    ]
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "PUT",
        "path": "/v1/datasets",
        "raw_path": b"/v1/datasets",
        "query_string": b"name=d",
        "headers": [(b"host", b"test"), (b"authorization", f"Bearer {service.key('default')}".encode())],
        "root_path": "",
        "scheme": "http",
        "server": ("test", 80),
    }

    async def receive() -> Message:
        return messages.pop(0)

    async def send(message: Message) -> None:
        return None

    anyio.run(service.app, scope, receive, send)
    assert messages == []
    assert files(service) == []
    assert service.client.get("/v1/datasets").json()["data"] == []


@pytest.mark.parametrize("query", ["", "name=", "name=a/b", "name=" + "x" * 201, "name=d&kind=nonsense", "name=%00"])
def test_names_and_kinds_are_checked(service: Served, query: str) -> None:
    assert service.client.put(f"/v1/datasets?{query}", content=BYTES).status_code == 422
    assert files(service) == []


def test_the_check_s_outcome_is_shown(service: Served) -> None:
    good, bad = upload(service, "good"), upload(service, "bad", b"nonsense")
    report = service.client.get(f"/v1/datasets/{good['id']}/report")
    assert (report.status_code, report.json()["code"]) == (409, "not_checked_yet")
    check(service)
    shown = service.client.get(f"/v1/datasets/{good['id']}").json()
    assert (shown["state"], shown["kind"], shown["samples"], shown["classes"]) == ("ready", "images", 1000, ["a", "b"])
    report = service.client.get(f"/v1/datasets/{good['id']}/report").json()
    assert (report["notes"], report["facts"]["classes"]) == (["n"], {"a": 500, "b": 500})
    with service.sessions.begin() as session:
        claimed = intake.claim(session, "w", 30)
        assert claimed is not None
        problem = {"where": "", "code": "unknown_kind", "message": "no dataset", "hint": "h"}
        intake.invalid(session, claimed.claim, error_of("unknown_kind"), {"errors": [problem]})
    shown = service.client.get(f"/v1/datasets/{bad['id']}").json()
    assert (shown["state"], shown["error"]["code"]) == ("invalid", "unknown_kind")
    answer = service.client.post("/v1/jobs", json={"dataset": bad["id"], "model": {"kind": "mlp"}})
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, "invalid_dataset")


def test_lists_are_filtered_and_paged(service: Served) -> None:
    for number in range(5):
        upload(service, f"d{number}", b"%d" % number)
    check(service)
    page = service.client.get("/v1/datasets?limit=2").json()
    rest = service.client.get(f"/v1/datasets?after={page['next']}").json()
    assert ([d["name"] for d in page["data"]], page["has_more"]) == (["d4", "d3"], True)
    assert [d["name"] for d in rest["data"]] == ["d2", "d1", "d0"]
    assert [d["name"] for d in service.client.get("/v1/datasets?state=ready").json()["data"]] == ["d0"]
    assert [d["name"] for d in service.client.get("/v1/datasets?name=d3").json()["data"]] == ["d3"]


def test_a_checker_that_dies_is_replaced_and_then_the_file_is_blamed(service: Served) -> None:
    dataset = upload(service)["id"]
    with service.sessions.begin() as session:
        first = intake.claim(session, "w1", -1)
    with service.sessions.begin() as session:
        second = intake.claim(session, "w2", 30)
    assert first is not None
    assert second is not None
    assert (second.dataset_id, second.claim.fence) == (dataset, first.claim.fence + 1)
    with pytest.raises(StaleFence), service.sessions.begin() as session:
        intake.ready(session, first.claim, FACTS, {}, "prepared/x")
    claim = second.claim
    for _ in range(3):
        with service.sessions.begin() as session:
            intake.interrupted(session, claim)
        with service.sessions.begin() as session:
            again = intake.claim(session, "w", 30)
        claim = again.claim if again else claim
    shown = service.client.get(f"/v1/datasets/{dataset}").json()
    assert (shown["state"], shown["error"]["code"]) == ("invalid", "intake_died")


def test_deleting_removes_bytes_that_nobody_else_has(service: Served) -> None:
    first, second = upload(service, "first"), upload(service, "second")
    assert service.client.delete(f"/v1/datasets/{first['id']}").status_code == 204
    assert len(files(service)) == 1
    assert service.client.delete(f"/v1/datasets/{second['id']}").status_code == 204
    assert files(service) == []
    assert service.client.delete(f"/v1/datasets/{second['id']}").status_code == 404
    assert upload(service, "first")["version"] == 2  # a number is never given twice
    assert len(files(service)) == 1


def test_jobs_keep_their_dataset(service: Served) -> None:
    job = service.submit()
    dataset = service.job(job)["dataset"]["id"]
    answer = service.client.delete(f"/v1/datasets/{dataset}")
    assert (answer.status_code, answer.json()["code"]) == (409, "in_use")
    assert job in answer.json()["detail"]
    assert (len(files(service)), service.job(job)["state"]) == (1, "queued")


def test_with_force_the_jobs_end(service: Served) -> None:
    running = service.submit()
    dataset = service.job(running)["dataset"]["id"]
    claimed = service.claim()
    spec = {"dataset": dataset, "model": {"kind": "mlp"}}
    waiting = service.client.post("/v1/jobs", json=spec).json()["id"]
    elsewhere = service.submit()
    assert service.client.delete(f"/v1/datasets/{dataset}?force=true").status_code == 204
    assert (service.job(waiting)["state"], service.job(elsewhere)["state"]) == ("cancelled", "queued")
    with service.sessions.begin() as session:
        wish = leases.requested_action(session, claimed.claim)
        assert wish is not None
        assert wish["action"] == "cancel"
        attempts.cancelled(session, claimed.claim)
    for job in (running, waiting):
        assert service.job(job)["state"] == "cancelled"
        last = service.client.get(f"/v1/jobs/{job}/events").json()["data"][-1]
        assert last["reason"] == f"dataset {dataset} was deleted"


def test_a_long_queue_is_cancelled_in_small_transactions(service: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """All in one would hold SQLite's write lock for half a minute at 10,000 queued jobs."""
    monkeypatch.setattr("service.deletion.service.CANCELLED_AT_ONCE", 2)
    dataset = service.ready_dataset()
    spec = {"dataset": dataset, "model": {"kind": "mlp"}}
    waiting = [service.client.post("/v1/jobs", json=spec).json()["id"] for _ in range(5)]
    commits: list[int] = []
    event.listen(service.context.engine, "commit", lambda connection: commits.append(1))
    assert service.client.delete(f"/v1/datasets/{dataset}?force=true").status_code == 204
    assert len(commits) >= 4, "three for the jobs, one for the dataset"
    assert {service.job(job)["state"] for job in waiting} == {"cancelled"}
    assert service.client.delete(f"/v1/datasets/{'ds_none'}?force=true").status_code == 404


def test_a_dataset_that_a_spec_names_elsewhere_is_in_use_too(service: Served) -> None:
    weights = service.ready_dataset(kind="weights")
    start = {"dataset": weights, "freeze": "none"}
    spec = {"dataset": service.ready_dataset(), "model": {"kind": "mlp"}, "start_from": start}
    answer = service.client.post("/v1/jobs", json=spec)
    assert answer.status_code == 201, answer.text
    assert service.client.delete(f"/v1/datasets/{weights}").status_code == 409
    assert service.client.delete(f"/v1/datasets/{weights}?force=true").status_code == 204
    assert service.job(answer.json()["id"])["state"] == "cancelled"


def test_only_the_record_of_a_dataset_that_was_used_stays(service: Served) -> None:
    job = service.submit()
    dataset = service.job(job)["dataset"]["id"]
    body = files(service)[0].read_bytes()
    service.client.post(f"/v1/jobs/{job}/cancel")
    for _ in range(2):
        assert service.client.delete(f"/v1/datasets/{dataset}").status_code == 204
    assert files(service) == []
    shown = service.client.get(f"/v1/datasets/{dataset}").json()
    assert (shown["state"], shown["error"]["code"]) == ("invalid", "deleted")
    assert service.job(job)["dataset"]["sha256"] == shown["sha256"]
    answer = service.client.post("/v1/jobs", json={"dataset": dataset, "model": {"kind": "mlp"}})
    assert answer.json()["errors"][0]["code"] == "invalid_dataset"
    again = upload(service, shown["name"], body)
    assert (again["version"], len(files(service))) == (2, 1)
    assert service.client.delete(f"/v1/datasets/{again['id']}").status_code == 204
    assert files(service) == []


def test_uploads_and_deletions_of_the_same_bytes_never_leave_a_dataset_without_them(service: Served) -> None:
    def both(number: int) -> None:
        shown = upload(service, f"d{number}")
        if number % 2:
            assert service.client.delete(f"/v1/datasets/{shown['id']}").status_code == 204

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(both, range(12)))
    left = service.client.get("/v1/datasets").json()["data"]
    assert len(left) == 6
    assert [path.name for path in files(service)] == [SHA]


def test_classes_of_a_table_are_told_once_its_target_is_known(service: Served) -> None:
    columns = [
        {"name": "x", "type": "numeric", "unique": 90},
        {"name": "who", "type": "categorical", "unique": 2, "categories": {"no": 60, "yes": 40}},
    ]
    table = {"kind": "table", "samples": 100, "columns": columns}
    for target, classes in (("who", ["no", "yes"]), ("x", None), (None, None)):
        dataset = service.ready_dataset(**table, classes=None, target=target)
        assert service.client.get(f"/v1/datasets/{dataset}").json()["classes"] == classes
