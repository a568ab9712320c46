"""The page of a job in a real browser: curves, marks, evaluation, fork, diagnosis, memory."""

from __future__ import annotations

import csv
import re
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, Page

from tests.support.dashboard import curve, ended, submit, visit
from tests.support.replayed_stream import Replay, heap_growth
from tests.support.stack import Stack, training_processes, wait_for

pytestmark = pytest.mark.parametrize("stack", ["sqlite"], indirect=True)


def test_a_live_curve_has_the_points_of_the_log_and_the_job_is_stopped(browser: Browser, stack: Stack) -> None:
    seen = visit(browser, stack, "live-curve")
    page = seen.page
    with seen.client() as client:
        job = submit(client, epochs=20_000, name="endless")
        page.get_by_role("link", name="endless").click()
        drawn = curve(page, "loss")
        drawn.wait_for()

        def points() -> list[int]:
            return [int(count) for count in (drawn.get_attribute("data-points") or "0").split(",")]

        before = points()[0]
        wait_for(lambda: points()[0] > before + 3, what="the curve to grow")
        page.get_by_role("button", name="Stop").click()
        page.get_by_role("dialog").get_by_role("button", name="Stop").click()
        page.locator(".badge.state-stopped").wait_for()
        assert ended(client, job)["stop_reason"] == "client_stop"
        expected = rows_that_count(client, job)
        assert 4 < len(expected["val_loss"]) < 3000  # beyond, the page thins them
        # not loaded anew: each row came over the stream, once
        wait_for(lambda: saved(page, "loss", "step") == expected, seconds=30, what="the last rows")
    seen.check()


def rows_that_count(client: httpx.Client, job: str) -> dict[str, dict[float, float]]:
    """Values of both losses by step, from the log itself."""
    rows: dict[str, dict[float, float]] = {"train_loss": {}, "val_loss": {}}
    after, done = 0, False
    while not done:
        query = {"names": "train_loss,val_loss", "after": after, "limit": 5000}
        answer = client.get(f"/v1/jobs/{job}/metrics", params=query).json()
        after, done = answer["next"], answer["done"]
        for one in answer["data"]:
            if not one["superseded"]:
                values = rows[f"{one['split']}_{one['name']}"]
                assert one["step"] not in values
                values[one["step"]] = one["value"]
    return rows


def saved(page: Page, title: str, axis: str) -> dict[str, dict[float, float]]:
    """What a chart shows on an axis, as its button saves it: values by x, of each line."""
    page.get_by_label("x axis").select_option(axis)
    with page.expect_download() as download:
        page.get_by_role("button", name=f"Save {title} as CSV").click()
    header, *rows = csv.reader(download.value.path().read_text().splitlines())
    names = [name.replace("validation ", "val_").replace("train ", "train_") for name in header]
    assert names[0] == axis
    columns = zip(*rows, strict=True) if rows else [()] * len(names)
    x, *values = ([float(text) if text else None for text in column] for column in columns)
    return {
        name: {at: value for at, value in zip(x, of, strict=True) if at is not None and value is not None}
        for name, of in zip(names[1:], values, strict=True)
    }


def test_breaks_resumes_and_rates_are_marked(browser: Browser, stack: Stack) -> None:
    seen = visit(browser, stack, "marked")
    page = seen.page
    plateau = {"kind": "reduce_on_plateau", "patience": 40, "min_delta": 100.0, "monitor": "val_loss"}
    training = {"epochs": 20_000, "batch_size": 32, "checkpoint_seconds": 0.5}
    with seen.client() as client:
        job = submit(client, name="interrupted", schedule=plateau, train=training)
        seen.go(f"jobs/{job}")
        curve(page, "loss").wait_for()
        wait_for(lambda: client.get(f"/v1/jobs/{job}/checkpoints").json()["data"], what="a checkpoint")
        confirmed(page, "Pause")
        page.locator(".badge.state-paused").wait_for()
        page.wait_for_timeout(1500)
        confirmed(page, "Resume")
        paused_at = progress_of(client, job)
        victims = wait_for(lambda: training_processes(stack, job), what="the second attempt")
        wait_for(lambda: progress_of(client, job) > paused_at + 20, what="steps of the second attempt")
        for victim in victims:
            victim.kill()
        marks = page.get_by_role("list", name="Marks on the curves")
        marks.get_by_text("attempt 3 resumed").wait_for()
        again_at = progress_of(client, job)
        wait_for(lambda: progress_of(client, job) > again_at + 20, what="steps of the third attempt")
        confirmed(page, "Stop")
        ended(client, job)
        attempts = client.get(f"/v1/jobs/{job}/attempts").json()["data"]
        series = client.get(f"/v1/jobs/{job}/metrics/series", params={"max_points": 1500}).json()["series"]
        expected = rows_that_count(client, job)
    steps = [attempt["resumed_from_step"] for attempt in attempts]
    history = ["paused", f"attempt 2 resumed from step {steps[1]}"]
    history += ["interrupted: worker lost", f"attempt 3 resumed from step {steps[2]}"]
    for axis in ("step", "time"):
        page.get_by_label("x axis").select_option(axis)
        texts = [text.split(" ", 1)[1] for text in marks.locator("li").all_inner_texts()]
        assert [text for text in texts if text in history] == history, texts
        assert any(text.startswith("rate 0.001000 → ") for text in texts), texts
    # rows beyond a checkpoint, which the next attempt took back, are gone without loading the page anew
    wait_for(lambda: saved(page, "loss", "step") == expected, seconds=30, what="the rows that count")
    by_time = list(saved(page, "loss", "time")["val_loss"])
    assert by_time == pytest.approx(series["val_loss"]["elapsed"], abs=0.002)
    began, over = (datetime.fromisoformat(text) for text in (attempts[0]["finished_at"], attempts[1]["started_at"]))
    assert max(after - before for before, after in pairwise(by_time)) > (over - began).total_seconds() > 1
    seen.picture("time")
    seen.check()


def confirmed(page: Page, action: str) -> None:
    page.get_by_role("button", name=action).click()
    page.get_by_role("dialog").get_by_role("button", name=action).click()


def test_a_page_that_stays_open_does_not_grow(browser: Browser, stack: Stack) -> None:
    seen = visit(browser, stack, "hours")
    page = seen.page
    with seen.client() as client:
        job = submit(client, name="for-hours")
        ended(client, job)
    seen.go(f"jobs/{job}")
    curve(page, "loss").wait_for()
    replay = Replay(seconds=800, parts=2)
    assert heap_growth(page, replay) < 20
    drawn = curve(page, "loss").get_attribute("data-points") or ""
    # the last rows were drawn, and the thinning was at work
    assert all(1000 <= int(count) < 3000 for count in drawn.split(",")), drawn
    seen.check()


def test_a_zoom_loads_finer_points_and_all_charts_share_the_cursor(browser: Browser, stack: Stack) -> None:
    seen = visit(browser, stack, "zoomed")
    page = seen.page
    rule = {"kind": "patience", "monitor": "val_loss", "patience": 30, "min_delta": 100.0}
    with seen.client() as client:
        job = submit(client, epochs=500, name="patient", early_stop=[rule], train={"epochs": 500, "batch_size": 8})
        assert ended(client, job)["stop_reason"] == "early_stop"
    for axis in ("epoch", "time"):
        seen.go(f"jobs/{job}?x={axis}")
        page.get_by_role("list", name="Marks on the curves").get_by_text("stopped: patience").wait_for()
        box = page.locator("figure", has=curve(page, "loss")).locator(".u-over")
        area = box.bounding_box()
        assert area is not None
        left, middle = area["x"] + 10, area["x"] + area["width"] / 2
        page.mouse.move(middle, area["y"] + 50)
        rate = page.locator("figure", has=curve(page, "learning rate")).locator(".u-value").last
        wait_for(lambda rate=rate: rate.inner_text() == "0.001000", seconds=20, what="the value at the cursor")
        with page.expect_response(re.compile("from_step=")) as response:
            page.mouse.move(left, area["y"] + 50)
            page.mouse.down()
            page.mouse.move(middle, area["y"] + 60, steps=5)
            page.mouse.up()
        query = parse_qs(urlsplit(response.value.url).query)
        steps = response.value.json()["series"]["val_loss"]["step"]
        first, last = int(query["from_step"][0]), int(query["to_step"][0])
        assert first <= min(steps) <= max(steps) <= last
        assert len(steps) < 31  # half of the evaluations
        page.get_by_role("button", name="Whole range").click()
    seen.check()


def progress_of(client: httpx.Client, job: str) -> int:
    return int((client.get(f"/v1/jobs/{job}").json()["progress"] or {"step": 0})["step"])


def test_a_cell_of_the_confusion_matrix_shows_its_samples(browser: Browser, stack: Stack, data: Path) -> None:
    seen = visit(browser, stack, "confused")
    page = seen.page
    with seen.client() as client:
        query = {"name": "digits"}
        client.put("/v1/datasets", params=query, content=(data / "digits.zip").read_bytes()).raise_for_status()
        spec = {
            "dataset": "digits",
            "model": {"kind": "mlp", "hidden": [8]},
            "train": {"epochs": 2, "batch_size": 64},
        }
        job = client.post("/v1/jobs", json=spec).json()["id"]
        ended(client, job)
        evaluation = client.get(f"/v1/jobs/{job}/evaluation").json()
    seen.go(f"jobs/{job}?tab=evaluation")
    first = evaluation["misclassified"][0]
    names = evaluation["classes"][first["actual"]], evaluation["classes"][first["predicted"]]
    count = evaluation["confusion_matrix"][first["actual"]][first["predicted"]]
    seen.picture("evaluation")
    page.get_by_role("button", name=f"{count} {names[0]} predicted as {names[1]}: show the samples").click()
    picture = page.get_by_role("dialog").get_by_role("img")
    picture.wait_for()
    assert picture.get_attribute("alt") == f"Samples {', '.join(map(str, first['samples']))}"
    assert picture.evaluate("image => image.naturalWidth") > 100
    seen.picture("samples")
    page.get_by_role("button", name="Close").click()
    error = evaluation["calibration"]["expected_calibration_error"]
    assert f"{error:.4g}"[:5] in page.locator(".calibration").inner_text()
    page.get_by_role("button", name="F1").click()
    weakest = max(evaluation["per_class"], key=lambda row: row["f1"])["class"]
    assert page.get_by_role("table", name="Classes").locator("tbody th").first.inner_text() == weakest
    seen.check()


def test_a_fork_is_edited_and_checked_before_it_runs(browser: Browser, stack: Stack) -> None:
    seen = visit(browser, stack, "forked")
    page = seen.page
    with seen.client() as client:
        training = {"epochs": 20_000, "batch_size": 32, "checkpoint_seconds": 0.5}
        job = submit(client, name="parent", train=training)
        newest = wait_for(lambda: client.get(f"/v1/jobs/{job}/checkpoints").json()["data"], what="a checkpoint")[0]
        client.post(f"/v1/jobs/{job}/stop").raise_for_status()
        ended(client, job)
        epochs = client.get(f"/v1/jobs/{job}").json()["progress"]["epoch"] + 5
        assert epochs > newest["epoch"]
        seen.go(f"jobs/{job}")
        page.get_by_role("button", name="Fork").click()
        dialog = page.get_by_role("dialog")
        text = dialog.get_by_label("Spec of the fork")
        dialog.get_by_text("No difference.").wait_for()
        given = text.input_value()
        text.fill(given.replace("epochs: 20000", "epochs: -1"))
        dialog.get_by_text("/train/epochs", exact=True).wait_for()
        assert dialog.get_by_role("button", name="Fork").is_disabled()
        # valid as a spec of its own; what a checkpoint cannot go on with is refused in the service's own words
        text.fill(given.replace("hidden: [8]", "hidden: [9]"))
        dialog.get_by_text("The spec is valid.").wait_for()
        dialog.get_by_role("button", name="Fork").click()
        dialog.get_by_text("this may not change in a fork").first.wait_for()
        text.fill(given.replace("epochs: 20000", f"epochs: {epochs}"))
        dialog.get_by_text("The spec is valid.").wait_for()
        assert dialog.locator(".diff").inner_text().split() == ["train.epochs", "20000", str(epochs)]
        seen.picture("fork")
        dialog.get_by_role("button", name="Fork").click()
        page.wait_for_url(lambda address: f"jobs/{job}" not in address)
        child = page.url.rsplit("/", 1)[1].split("?")[0]
        assert ended(client, child)["state"] == "succeeded"
        found = client.get(f"/v1/jobs/{child}").json()
        assert (found["parent"]["job"], found["parent"]["relation"]) == (job, "fork")
        assert found["spec"]["train"]["epochs"] == epochs
        seen.go(f"jobs/{child}?tab=timeline")
        page.get_by_role("img", name=re.compile("^1 attempts in")).wait_for()
        seen.picture("timeline")
    assert all("422" in complaint for complaint in seen.complaints)


def test_a_run_is_investigated_from_its_page(browser: Browser, stack: Stack) -> None:
    seen = visit(browser, stack, "investigated")
    page = seen.page
    with seen.client() as client:
        job = submit(client, name="too-slow", epochs=10, optimizer={"kind": "sgd", "lr": 1e-6})
        ended(client, job)
        seen.go(f"jobs/{job}")
        page.get_by_role("button", name="Investigate").click()
        page.get_by_role("dialog").get_by_role("button", name="Investigate").click()
        page.get_by_role("link", name="Investigated").wait_for()
        found = client.get(f"/v1/jobs/{job}/diagnosis").json()
        aside = page.get_by_role("complementary", name="Diagnosis")
        assert found["investigation"]["message"] in aside.inner_text()
        assert found["verdicts"][0]["message"] in aside.inner_text()
        seen.picture("diagnosis")
    seen.check()


def test_a_recommendation_is_submitted_and_keeps_its_parent(browser: Browser, stack: Stack) -> None:
    seen = visit(browser, stack, "recommended")
    page = seen.page
    with seen.client() as client:
        job = submit(client, name="too-slow", epochs=10, optimizer={"kind": "sgd", "lr": 1e-6})
        ended(client, job)
        seen.go(f"jobs/{job}")
        page.get_by_role("button", name="Submit this").first.click()
        page.get_by_role("dialog").get_by_role("button", name="Submit").click()
        page.wait_for_url(lambda address: f"jobs/{job}" not in address)
        child = page.url.rsplit("/", 1)[1].split("?")[0]
        parent = client.get(f"/v1/jobs/{child}").json()["parent"]
        assert (parent["job"], parent["relation"]) == (job, "diagnosis")
        # the same by way of the form, where it could be changed
        seen.go(f"jobs/{job}")
        page.get_by_role("link", name="Edit first").first.click()
        page.get_by_text("The spec is valid.").wait_for()
        page.get_by_role("button", name="Submit").click()
        page.wait_for_url(lambda address: "#/jobs/" in address)
        again = client.get(f"/v1/jobs/{page.url.rsplit('/', 1)[1].split('?')[0]}").json()
        assert again["parent"]["relation"] == "diagnosis"
        assert again["replicate_key"] == client.get(f"/v1/jobs/{child}").json()["replicate_key"]
    seen.check()
