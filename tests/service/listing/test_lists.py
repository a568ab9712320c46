"""Lists by HTTP, on both databases: pages that nothing moves, every filter and sort, fields, suggestions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from service.jobs import repository
from service.jobs.routes import JOBS
from tests.support.api import Served, assert_problem, resume_elsewhere, row

pytestmark = pytest.mark.postgresql
LISTS = ("jobs", "datasets", "models", "experiments", "uploads", "webhooks", "keys", "workers", "projects")


def names(service: Served, query: str) -> list[str]:
    answer = service.client.get(f"/v1/jobs?{query}")
    assert answer.status_code == 200, answer.text
    return [job["name"] for job in answer.json()["data"]]


def pages(service: Served, query: str, between: Callable[[], object] = lambda: None) -> list[dict[str, Any]]:
    """All rows of a list, page by page; `between` two pages something happens."""
    rows: list[dict[str, Any]] = []
    after = ""
    while True:
        page = service.client.get(f"/v1/jobs?{query}{after}").json()
        rows += page["data"]
        assert page["has_more"] == (page["next"] is not None)
        if page["next"] is None:
            return rows
        after = f"&after={page['next']}"
        between()


@pytest.fixture
def dataset(service: Served) -> str:
    return service.ready_dataset(name="digits")


@pytest.fixture
def submit(service: Served, dataset: str) -> Callable[..., str]:
    def one(name: str, **changes: Any) -> str:
        spec = {"dataset": dataset, "model": {"kind": "mlp"}, "name": name, **changes}
        return str(service.client.post("/v1/jobs", json=spec).raise_for_status().json()["id"])

    return one


def test_every_list_has_one_form(service: Served, submit: Callable[..., str]) -> None:
    job = submit("a")
    parts = [f"jobs/{job}/{part}" for part in ("events", "decisions", "attempts", "checkpoints", "artifacts")]
    for path in (*LISTS, *parts):
        answer = service.client.get(f"/v1/{path}")
        assert answer.status_code == 200, answer.text
        assert set(answer.json()) == {"data", "has_more", "next"}, path
        assert answer.json()["has_more"] is False
        assert_problem(service.client.get(f"/v1/{path}?limit=0"), 422, "invalid_request")


@pytest.mark.parametrize("sort", ["created_at", "-created_at", "name", "-name", "updated_at", "-updated_at"])
def test_pages_join_without_gap_or_repetition_while_jobs_come(
    service: Served, submit: Callable[..., str], sort: str
) -> None:
    jobs = {submit(name) for name in ("b", "a", "c", "a", "Z", "é", "a", "0")}
    rows = pages(service, f"limit=3&sort={sort}", lambda: submit("new"))
    found = [one["id"] for one in rows]
    assert len(found) == len(set(found))
    assert jobs <= set(found)
    key = {"created_at": "id", "name": "name", "updated_at": "id"}[sort.removeprefix("-")]
    values = [(one[key].encode(), one["id"]) for one in rows]
    assert values == sorted(values, reverse=sort.startswith("-"))


@pytest.mark.parametrize("sort", ["finished_at", "-finished_at"])
def test_rows_without_a_value_come_last_in_both_directions(
    service: Served, submit: Callable[..., str], sort: str
) -> None:
    for number in range(7):
        job = submit(str(number))
        if number % 2:
            service.client.post(f"/v1/jobs/{job}/cancel")
    ended, waiting = ["1", "3", "5"], ["0", "2", "4", "6"]
    if sort.startswith("-"):
        ended, waiting = ended[::-1], waiting[::-1]
    for limit in (1, 2, 3, 4, 50):
        assert [one["name"] for one in pages(service, f"limit={limit}&sort={sort}")] == ended + waiting


def test_a_cursor_of_another_sort_is_refused(service: Served, submit: Callable[..., str]) -> None:
    for name in "abc":
        submit(name)
    following = service.client.get("/v1/jobs?sort=name&limit=1").json()["next"]
    problem = assert_problem(service.client.get(f"/v1/jobs?after={following}"), 422, "invalid_request")
    assert problem["errors"][0]["code"] == "cursor_of_another_sort"
    assert names(service, f"sort=name&after={following}&state=queued") == ["b", "c"]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("name=digits", ["digits"]),
        ("name=digits*", ["digits", "digits-cnn", "digits_2"]),
        ("name=*cnn", ["digits-cnn", "small-cnn"]),
        ("name=*its*", ["digits", "digits-cnn", "digits_2"]),
        ("name=*_*", ["digits_2"]),
        ("name=*%25*", ["100%"]),
        ("name=DIGITS*", []),
        ("name=digits*&state=queued", ["digits", "digits-cnn", "digits_2"]),
        ("name=digits*&state=queued,running&label.team=vision", ["digits-cnn"]),
        ("group=sweep", ["100%", "small-cnn"]),
        ("group=sweep&group=other", ["100%", "small-cnn"]),
        ("dataset=digits&name=100%25", ["100%"]),
        ("dataset=digits:1&name=100%25", ["100%"]),
        ("created_after=2020-01-01T00:00:00Z&name=digits", ["digits"]),
        ("created_before=2020-01-01T00:00:00Z", []),
        ("started_after=2020-01-01T00:00:00Z", []),
        ("finished_before=2090-01-01T00:00:00Z", []),
        ("updated_after=2020-01-01T00:00:00Z&updated_before=2090-01-01T00:00:00Z&name=digits", ["digits"]),
        ("stop_reason=completed", []),
    ],
)
def test_jobs_are_found_by_what_their_rows_show(
    service: Served, submit: Callable[..., str], query: str, expected: list[str]
) -> None:
    for name in ("digits", "digits_2", "other"):
        submit(name)
    submit("digits-cnn", labels={"team": "vision"})
    for name in ("small-cnn", "100%"):
        submit(name, group="sweep")
    for sort in ("created_at", "name", "-updated_at"):
        assert sorted(names(service, f"{query}&sort={sort}")) == sorted(expected)


def test_a_dataset_is_named_by_its_id_too(service: Served, submit: Callable[..., str], dataset: str) -> None:
    submit("a")
    service.submit(name="on another dataset")
    assert names(service, f"dataset={dataset}") == names(service, "dataset=digits") == ["a"]


def test_fields_answer_with_these_alone(service: Served, submit: Callable[..., str]) -> None:
    job = submit("a")
    claimed = service.claim()
    service.append(claimed, row("accuracy", 0.5), row("loss", 0.1, split="train"))
    (found,) = service.client.get("/v1/jobs?fields=id,metrics.last.val_*,spec.model.kind,dataset.name").json()["data"]
    assert found == {
        "id": job,
        "metrics": {"last": {"val_accuracy": 0.5}},
        "spec": {"model": {"kind": "mlp"}},
        "dataset": {"name": "digits"},
    }
    every = service.client.get(f"/v1/jobs?fields={','.join(JOBS.row.model_fields)}").json()["data"]
    assert every == [service.job(job)]
    problem = assert_problem(service.client.get("/v1/jobs?fields=id,nmae"), 422, "invalid_request")
    assert problem["errors"][0]["hint"] == 'Did you mean "name"?'


def test_a_hundred_jobs_are_a_short_list(service: Served, submit: Callable[..., str]) -> None:
    for number in range(3):
        submit(f"digits-cnn-{number}", labels={"team": "vision"}, group="rates")
        claimed = service.claim()
        values = [("loss", "train"), ("accuracy", "train"), ("loss", "val"), ("accuracy", "val")]
        service.append(claimed, *(row(name, 0.1234567890123456, split=split) for name, split in values))
        service.finish(claimed)
    answer = service.client.get("/v1/jobs")
    assert len(answer.content) / 3 * 100 < 40_000
    shown = answer.json()["data"][0]
    assert set(shown) == {
        *("id", "name", "state", "stop_reason", "error", "progress", "metrics", "labels", "group", "dataset"),
        *("created_at", "finished_at"),
    }


@pytest.mark.parametrize(
    ("query", "meant"),
    [("status=running", "state"), ("limt=3", "limit"), ("order_by=name", "sort"), ("per_page=3", "limit")],
)
def test_an_unknown_parameter_gets_what_was_meant(service: Served, query: str, meant: str) -> None:
    problem = assert_problem(service.client.get(f"/v1/jobs?{query}"), 422, "invalid_request")
    assert problem["errors"][0]["hint"] == f'Did you mean "{meant}"?'


def test_a_strangers_jobs_are_in_no_list(service: Served, submit: Callable[..., str], dataset: str) -> None:
    submit("a", group="g", labels={"team": "vision"})
    stranger = service.client_for("other")
    for query in ("", "name=a", "sort=name", "group=g", "label.team=vision", f"dataset={dataset}"):
        assert stranger.get(f"/v1/jobs?{query}").json()["data"] == []
    assert stranger.get("/v1/jobs?dataset=digits").status_code == 422


def train(service: Served, submit: Callable[..., str], name: str, *accuracies: float) -> str:
    job = submit(name)
    claimed = service.claim()
    for step, value in enumerate(accuracies, 1):
        service.append(claimed, row("accuracy", value, step))
    service.finish(claimed)
    return job


def test_jobs_are_sorted_and_filtered_by_their_best_metrics(service: Served, submit: Callable[..., str]) -> None:
    train(service, submit, "good", 0.5, 0.9, 0.7)
    train(service, submit, "best", 0.95)
    train(service, submit, "poor", 0.1, 0.2)
    train(service, submit, "equal", 0.9)
    train(service, submit, "none")
    descending, ascending = ["best", "equal", "good", "poor", "none"], ["poor", "good", "equal", "best", "none"]
    for limit in (1, 2, 3, 50):
        found = pages(service, f"limit={limit}&sort=-metrics.best.val_accuracy&fields=name")
        assert [one["name"] for one in found] == descending
        found = pages(service, f"limit={limit}&sort=metrics.best.val_accuracy&fields=name")
        assert [one["name"] for one in found] == ascending
    assert names(service, "metric.val_accuracy>=0.9&sort=name") == ["best", "equal", "good"]
    assert names(service, "metric.val_accuracy>0.9") == ["best"]
    assert names(service, "metric.val_accuracy<0.9&metric.val_accuracy>0.15") == ["poor"]
    assert names(service, "metric.val_accuracy=0.95") == ["best"]
    assert names(service, "metric.val_accuracy%3E%3D0.9&name=*o*&state=succeeded&sort=-metrics.best.val_accuracy") == [
        "good"
    ]
    assert names(service, "metric.val_f1>0") == []
    assert names(service, "sort=-metrics.best.val_f1&limit=2") == ["none", "equal"]
    for wrong in ("metric.val_acuracy>0", "sort=-metrics.best.val_acuracy"):
        refused = service.client.get(f"/v1/jobs?{wrong}").json()["errors"][0]
        assert (refused["code"], refused["hint"]) == ("unknown_metric", 'Did you mean "val_accuracy"?')
    refused = service.client.get("/v1/jobs?lable.team=a").json()["errors"][0]
    assert (refused["code"], refused["hint"]) == ("unknown_parameter", 'Did you mean "label.team"?')
    stranger = service.client_for("other")
    assert stranger.get("/v1/jobs?metric.val_accuracy>=0.9").json()["data"] == []


def test_a_best_metric_of_steps_that_were_run_again_is_forgotten(service: Served, submit: Callable[..., str]) -> None:
    submit("a")
    claimed = service.claim()
    service.append(claimed, row("accuracy", 0.5), row("accuracy", 0.9, 2), row("r2", 0.1, 2))
    assert names(service, "metric.val_accuracy>=0.9") == names(service, "metric.val_r2=0.1") == ["a"]
    resume_elsewhere(service, claimed, 1)
    assert names(service, "metric.val_accuracy>=0.9") == names(service, "metric.val_r2=0.1") == []
    assert names(service, "metric.val_accuracy=0.5") == ["a"]


def test_models_are_found_by_their_metrics(service: Served, submit: Callable[..., str]) -> None:
    train(service, submit, "a", 0.5)
    for query, count in (
        ("metric.accuracy>=0.9", 1),
        ("metric.accuracy>0.9", 0),
        ("metric.f1>0.5", 0),
        ("bytes>=10", 1),
    ):
        assert len(service.client.get(f"/v1/models?{query}&sort=-metrics.accuracy").json()["data"]) == count


def test_few_jobs_are_sorted_as_the_database_sorts_many(
    service: Served, submit: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, name in enumerate(("b", "é", "a", "Z", "a", "\U0001f600", "￿")):
        submit(name, group="g", labels={"team": "vision"})
        if number % 2:
            train(service, submit, name, 0.5 + (number % 4) / 10)
    orders = ("name", "updated_at", "started_at", "finished_at", "metrics.best.val_accuracy", "metrics.best.val_f1")
    filters = ("group=g", "label.team=vision", "state=queued", "state=queued,succeeded", "name=*a*")
    filters += ("updated_after=2020-01-01T00:00:00Z", "updated_after=2090-01-01T00:00:00Z")
    filters += ("state=queued,succeeded&updated_after=2020-01-01T00:00:00Z", "metric.val_accuracy>=0.6")
    for order in orders:
        for query in filters:
            for sign in ("", "-"):
                of_list = f"limit=2&sort={sign}{order}&{query}"
                few = [row["id"] for row in pages(service, of_list)]
                with monkeypatch.context() as patch:
                    patch.setattr(repository, "FEW", 0)
                    assert few == [row["id"] for row in pages(service, of_list)], of_list
                assert few or "2090" in query, of_list
