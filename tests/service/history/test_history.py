"""History of groups and experiments: what was tried, in which order, why, what it gave; and notes in it."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import pytest
from markdown_it import MarkdownIt
from sqlalchemy import insert, inspect, select

from service.experiments.tables import Trial
from service.history.service import PLATEAU_RUNS
from service.jobs.tables import Job
from service.notes.tables import Note
from service.recommendations.tables import Recommendation
from tests.support.api import Served, assert_problem, record_checkpoint, row
from tests.support.simulated_training import by_fold, by_lr, post, run_all
from trainkit.spec.patch import merge_patch

pytestmark = pytest.mark.postgresql


def train(service: Served, accuracy: float, se: float | None = 0.01) -> str:
    """Train the job that is next to this validation accuracy."""
    claimed = service.claim()
    record_checkpoint(service, claimed)
    service.append(claimed, row("accuracy", accuracy), *([] if se is None else [row("accuracy_se", se)]))
    parts = {"val": {"accuracy": accuracy, "loss": 1 - accuracy}}
    service.finish(claimed, evaluation={"split": "val", "samples": 10, "metrics": parts["val"], "parts": parts})
    return claimed.job_id


def history(service: Served, path: str, **query: Any) -> dict[str, Any]:
    answer = service.client.get(f"/v1/{path}/history", params=query)
    assert answer.status_code == 200, answer.text
    shown: dict[str, Any] = answer.json()
    return shown


def recommended(service: Served, job: str, source: str) -> None:
    """Record that the job follows a recommendation, as `diagnosis` in its parent does."""
    with service.sessions.begin() as session:
        session.add(
            Recommendation(
                job_id=job,
                project_id=session.get_one(Job, job).project_id,
                source_job=source,
                code="underfitting_model_bias",
                ruleset_version=1,
                patch={"model": {"hidden": [64]}},
                expected={"metric": "val_accuracy", "direction": "max"},
                compared={},
                created_at=datetime.now(UTC),
            )
        )


def test_a_group_tells_what_was_tried_why_and_what_it_gave(service: Served) -> None:
    first = service.submit(group="tune/1", name="first")
    service.client.patch(f"/v1/jobs/{first}", json={"notes": "the baseline"})
    train(service, 0.8, 0.02)
    patch = {"optimizer": {"kind": "adam", "lr": 0.5}, "train": {"epochs": 30}, "name": "faster"}
    fork = service.client.post(f"/v1/jobs/{first}/fork", json={"patch": patch}).json()["id"]
    train(service, 0.802, 0.02)
    follows = service.submit(group="tune/1", name="wider", dataset=service.job(first)["dataset"]["id"])
    recommended(service, follows, first)
    train(service, 0.9)
    waits = service.submit(group="tune/1")
    shown = history(service, "groups/tune%2F1")
    assert shown == history(service, "groups/tune/1"), "the name may have a slash"
    assert [run["job"] for run in shown["data"]] == [first, fork, follows, waits]
    assert (shown["total"], shown["states"]) == (4, {"succeeded": 3, "queued": 1})
    assert (shown["metric"], shown["direction"], shown["best"]) == ("val_accuracy", "max", 3)
    one, two, three, four = shown["data"]
    assert (one["index"], one["note"], one["why"]["source"], one["why"]["patch"]) == (
        *(1, "the baseline", "submitted", None),
    )
    # 95 %: 1.96 standard errors on both sides
    assert one["result"] == pytest.approx({"value": 0.8, "se": 0.02, "low": 0.7608, "high": 0.8392, "improved": True})
    assert (two["why"]["source"], two["why"]["job"], two["why"]["text"]) == (
        *("fork", first, f"forked from {first} at step 7"),
    )
    assert merge_patch(service.job(first)["spec"], two["why"]["patch"]) == service.job(fork)["spec"]
    assert two["why"]["patch"]["train"] == {"epochs": 30}
    assert two["result"]["improved"] is False, "0.002 is within the noise"
    assert (three["why"]["source"], three["why"]["code"], three["why"]["patch"]) == (
        *("recommendation", "underfitting_model_bias", {"model": {"hidden": [64]}}),
    )
    assert (four["state"], four["result"]) == ("queued", None)
    assert shown["plateau"] == {**shown["plateau"], "reached": False, "runs": 0, "since": 3}
    by_loss = history(service, "groups/tune/1", metric="val_loss")
    assert [run["result"] and run["result"]["value"] for run in by_loss["data"]] == pytest.approx(
        [0.2, 0.198, 0.1, None]
    )
    refused = service.client.get("/v1/groups/tune/1/history?metric=val_acuracy")
    assert_problem(refused, 422, "unknown_metric")


def test_runs_that_stopped_to_help_are_a_plateau_by_a_rule_that_is_told(service: Served) -> None:
    dataset = service.ready_dataset()
    for accuracy in (0.5, 0.7, *[0.7 + 0.0001 * n for n in range(PLATEAU_RUNS - 1)]):
        service.submit(group="flat", dataset=dataset)
        train(service, accuracy)
    before = history(service, "groups/flat")["plateau"]
    assert (before["reached"], before["runs"], before["since"]) == (False, PLATEAU_RUNS - 1, 2)
    service.submit(group="flat", dataset=dataset)
    train(service, 0.7)
    shown = history(service, "groups/flat")
    assert (shown["plateau"]["reached"], shown["plateau"]["runs"], shown["plateau"]["since"]) == (True, PLATEAU_RUNS, 2)
    assert f"last {PLATEAU_RUNS} or more" in shown["plateau"]["rule"]
    assert shown["best"] == len(shown["data"]) - 1, "the best by the figure alone"
    service.submit(group="flat", dataset=dataset)
    train(service, 0.9)
    assert history(service, "groups/flat")["plateau"]["reached"] is False


def test_an_experiment_keeps_its_history_when_its_jobs_are_gone(service: Served) -> None:
    experiment = post(service, "grid", space={"/optimizer/lr": [0.1, 0.01, 0.001]}, name="rates")
    run_all(service, by_lr)
    shown = history(service, f"experiments/{experiment['id']}")
    assert (shown["name"], shown["kind"], shown["state"], shown["total"]) == ("rates", "grid", "succeeded", 3)
    assert [run["why"]["text"] for run in shown["data"]] == [f"optimizer/lr = {lr}" for lr in (0.1, 0.01, 0.001)]
    assert [run["params"] for run in shown["data"]] == [{"/optimizer/lr": lr} for lr in (0.1, 0.01, 0.001)]
    assert [run["result"]["improved"] for run in shown["data"]] == [True, True, True]
    assert shown["best"] == 3
    of_group = history(service, f"groups/{experiment['id']}", metric=shown["metric"])
    assert [run["job"] for run in of_group["data"]] == [run["job"] for run in shown["data"]]
    for run in shown["data"]:
        assert service.client.delete(f"/v1/jobs/{run['job']}").status_code in (200, 204)
    after = history(service, f"experiments/{experiment['id']}")
    assert [run["result"] for run in after["data"]] == [run["result"] for run in shown["data"]]


def test_folds_have_no_plateau_and_an_autopilot_s_steps_have_its_reasons(service: Served) -> None:
    folds = post(service, "kfold", folds=3)
    run_all(service, by_fold)
    of_folds = history(service, f"experiments/{folds['id']}")
    assert (of_folds["plateau"], [run["result"]["improved"] for run in of_folds["data"]]) == (None, [None] * 3)
    assert history(service, f"groups/{folds['id']}")["plateau"] is None
    experiment = post(service, "grid", space={"/optimizer/lr": [0.1, 0.01]})
    run_all(service, by_lr)
    why = {"kind": "verdict", "code": "overfitting", "why": "the gap is wide", "patch": {"a": 1}, "source": 0}
    with service.sessions.begin() as session:
        session.get_one(Trial, (experiment["id"], 1)).rationale = why
    first, second = history(service, f"experiments/{experiment['id']}")["data"]
    assert second["why"] == {
        **{"source": "autopilot", "text": "the gap is wide", "code": "overfitting"},
        **{"job": first["job"], "patch": {"a": 1}},
    }


def test_notes_are_appended_with_author_and_time(service: Served) -> None:
    experiment = post(service, "grid", space={"/optimizer/lr": [0.1]})
    url = f"/v1/experiments/{experiment['id']}/notes"
    first = service.client.post(url, json={"text": "try smaller rates"}, headers={"Idempotency-Key": "k"})
    assert (first.status_code, first.headers["location"]) == (201, url.replace("/notes", "/history"))
    again = service.client.post(url, json={"text": "try smaller rates"}, headers={"Idempotency-Key": "k"})
    assert (again.json(), again.headers["idempotency-replayed"]) == (first.json(), "true")
    second = service.client.post(f"/v1/groups/{experiment['id']}/notes", json={"text": "it was the data"}).json()
    shown = history(service, f"experiments/{experiment['id']}")
    assert shown["notes"] == [first.json(), second] == history(service, f"groups/{experiment['id']}")["notes"]
    assert first.json()["actor"].startswith("key:")
    for method in ("put", "patch", "delete"):
        assert getattr(service.client, method)(url).status_code == 405
    for text in ("", "x" * 4001):
        assert_problem(service.client.post(url, json={"text": text}), 422, "invalid_request")
    assert_problem(service.client_for("default", "viewer").post(url, json={"text": "x"}), 403, "forbidden")
    stranger = service.client_for("other", "developer")
    for path in (
        url,
        url.replace("/notes", "/history"),
        f"/v1/groups/{experiment['id']}/history",
        "/v1/groups/x/notes",
    ):
        answer = stranger.post(path, json={"text": "x"}) if path.endswith("notes") else stranger.get(path)
        assert_problem(answer, 404, "not_found")


def test_notes_go_when_nobody_could_read_them_any_more(service: Served) -> None:
    experiment = post(service, "grid", space={"/optimizer/lr": [0.1]})
    run_all(service, by_lr)
    (trial,) = history(service, f"experiments/{experiment['id']}")["data"]
    for group in ("pair", "pair", "other"):
        service.submit(group=group)
        train(service, 0.5)
    for group in ("pair", "other", experiment["id"]):
        assert service.client.post(f"/v1/groups/{group}/notes", json={"text": "a thought"}).status_code == 201

    def kept() -> set[str]:
        with service.sessions() as session:
            return set(session.scalars(select(Note.group_name)))

    first, second = (run["job"] for run in history(service, "groups/pair")["data"])
    for job, groups in ((first, {"pair", "other", experiment["id"]}), (second, {"other", experiment["id"]})):
        assert service.client.delete(f"/v1/jobs/{job}").status_code in (200, 204)
        assert kept() == groups
    assert service.client.delete(f"/v1/jobs/{trial['job']}").status_code in (200, 204)
    assert kept() == {"other", experiment["id"]}, "the experiment is still there"
    assert service.client.delete(f"/v1/experiments/{experiment['id']}").status_code == 204
    assert kept() == {"other"}


def test_markdown_says_the_same_and_shows_texts_as_text(service: Served) -> None:
    service.submit(group="md", name="a|b <script>*x*\n# y")
    train(service, 0.8)
    service.client.post("/v1/groups/md/notes", json={"text": "see [this](http://x) | and\n# that"})
    text = service.client.get("/v1/groups/md/history", headers={"Accept": "text/markdown"})
    assert text.headers["content-type"].startswith("text/markdown")
    assert text.text == service.client.get("/v1/groups/md/history?format=markdown").text
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(text.text)
    assert (html.count("<tr>"), html.count("<h1>"), html.count("<h2>"), "<script>" in html) == (2, 1, 1, False)
    assert "<td>a|b &lt;script&gt;*x* # y" in html
    assert "see [this](http://x) | and # that" in html
    assert "0.8 (0.7804 to 0.8196) improved" in html
    tag = text.headers["etag"]
    again = service.client.get("/v1/groups/md/history", headers={"Accept": "text/markdown", "If-None-Match": tag})
    assert again.status_code == 304
    assert service.client.get("/v1/groups/md/history").headers["content-type"] == "application/json"
    assert service.client.get("/v1/groups/md/history", headers={"Accept": "text/turtle"}).status_code == 406


def test_ten_thousand_runs_are_read_page_by_page(service: Served) -> None:
    source = service.submit(group="many")
    train(service, 0.5)
    with service.sessions.begin() as session:
        job = session.get_one(Job, source)
        columns = {one.key: getattr(job, one.key) for one in inspect(Job).column_attrs}
        copies = [
            {**columns, "id": f"{source}{n:05}", "evaluation": {"parts": {"val": {"accuracy": n / 20_000}}}}
            for n in range(1, 10_000)
        ]
        for start in range(0, len(copies), 500):
            session.execute(insert(Job), copies[start : start + 500])
    begun = time.monotonic()
    first = history(service, "groups/many", limit=1000)
    assert time.monotonic() - begun < 10, "a second on an idle machine"
    assert (first["total"], first["best"], len(first["data"]), first["next"]) == (10_000, 1, 1000, "1000")
    second = history(service, "groups/many", limit=1000, after=first["next"])
    assert [run["index"] for run in second["data"]] == list(range(1001, 2001))
    last = history(service, "groups/many", after=9_990)
    assert (len(last["data"]), last["has_more"], last["next"]) == (10, False, None)
    text = service.client.get("/v1/groups/many/history?format=markdown&limit=5").text
    assert "Runs 1 to 5 of 10000; go on with `after=5`." in text
    assert len(text) < 2500
