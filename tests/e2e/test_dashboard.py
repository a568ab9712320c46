"""The dashboard in a real browser, on a service of real processes: all pages but that of a job."""

from __future__ import annotations

import re
import statistics
from pathlib import Path

import httpx
import pytest
from PIL import Image
from playwright.sync_api import Browser, Route, expect

from tests.support.dashboard import AXE, IRIS, PAGES, curve, ended, settle, submit, sweep, visit
from tests.support.stack import Stack, wait_for

pytestmark = pytest.mark.parametrize("stack", ["sqlite"], indirect=True)


def test_three_clicks_from_an_empty_service_to_a_model(browser: Browser, stack: Stack) -> None:
    seen = visit(browser, stack, "first-clicks")
    page = seen.page
    page.get_by_role("button", name="Upload the sample dataset").click()
    page.get_by_role("button", name="Train a model").click()
    page.locator(".badge.state-succeeded").wait_for()
    curve(page, "loss").wait_for()
    seen.picture("job")
    page.get_by_role("link", name="Open").click()
    page.get_by_text("Trained by").wait_for()
    with seen.client() as client:
        (model,) = client.get("/v1/models").json()["data"]
        assert model["metrics"]["accuracy"] > 0.8
    seen.check()


def test_filters_and_comparisons_are_addresses(browser: Browser, stack: Stack) -> None:
    seen = visit(browser, stack, "compared")
    page = seen.page
    with seen.client() as client:
        jobs = [
            submit(client, name=f"rate-{rate}", optimizer={"kind": "adam", "lr": rate}) for rate in (0.001, 0.01, 0.1)
        ]
        for job in jobs:
            ended(client, job)
        names = page.locator("tbody td.name a")

        def filtered_to(*expected: str) -> None:
            wait_for(lambda: names.all_inner_texts() == [*expected], seconds=60, what="the filtered list")

        select_all = page.get_by_label("Select all")
        seen.go("jobs?name=rate-0.0*&sort=name")
        filtered_to("rate-0.001", "rate-0.01")
        select_all.check()
        page.get_by_role("link", name="Compare").click()
        fields = page.get_by_role("table", name="Fields of the specs that differ")
        fields.get_by_text("optimizer.lr").wait_for()
        assert fields.locator("tbody tr").count() == 1
        assert fields.locator("tbody td").all_inner_texts() == ["0.001", "0.01"]
        best = [client.get(f"/v1/jobs/{job}").json()["metrics"]["best"]["val_loss"] for job in jobs[:2]]
        shown = page.get_by_role("table", name="Best values; differences from the baseline")
        assert f"{best[0]:.4g}"[:5] in shown.inner_text()
        assert page.locator("svg circle").count() == 2
        held: list[Route] = []
        page.route("**/v1/jobs/stream?*", lambda route: held.append(route), times=1)
        seen.go("jobs?name=rate-0.0*")
        # the route's handler runs while the page is waited for
        wait_for(lambda: page.wait_for_timeout(20) or held, what="the request for the rows")
        expect(select_all).to_be_disabled()  # a click would select nothing before the rows have come
        held[0].continue_()
        filtered_to("rate-0.01", "rate-0.001")
        select_all.check()
        page.get_by_role("button", name="Label").click()
        page.get_by_role("dialog").get_by_label("Label").fill("team=vision")
        page.get_by_role("dialog").get_by_role("button", name="Label").click()
        page.get_by_role("link", name="team: vision").nth(1).wait_for()
        page.get_by_role("link", name="team: vision").first.click()
        page.wait_for_url("**label=team*")
        assert [client.get(f"/v1/jobs/{job}").json()["labels"] for job in jobs] == [{"team": "vision"}] * 2 + [{}]
        seen.go("jobs?metric=val_loss%3Cx")
        page.get_by_role("alert").wait_for()  # the service's own words
    # a refused filter is an error in the browser's console as well
    assert all("422" in complaint for complaint in seen.complaints)


def test_an_upload_that_is_cut_goes_on_where_it_was(browser: Browser, stack: Stack, tmp_path: Path) -> None:
    file = tmp_path / "large.csv"
    file.write_text("a,b,y\n" + "".join(f"{i},{i % 97},{i % 3}\n" for i in range(900_000)))
    seen = visit(browser, stack, "uploads")
    page = seen.page
    sent: list[int] = []

    def cut_the_second(route: Route) -> None:
        sent.append(int(route.request.headers["upload-offset"]))
        if len(sent) == 2:
            route.abort("connectionreset")
        else:
            route.continue_()

    page.route(
        "**/v1/uploads/**",
        lambda route: cut_the_second(route) if route.request.method == "PATCH" else route.continue_(),
    )
    seen.go("datasets")
    page.get_by_label("Drop a file or a folder here").set_input_files(file)
    page.get_by_label("Target column").fill("y")
    page.get_by_role("button", name=re.compile("^Upload")).click()
    page.get_by_role("link", name="large:1").wait_for()
    assert sent[0] == 0
    assert sent[2] == sent[1] > 0  # from where the service has it, and not from the beginning
    with seen.client() as client:
        (dataset,) = client.get("/v1/datasets").json()["data"]
        assert dataset["bytes"] == file.stat().st_size
    assert all("ERR_CONNECTION_RESET" in complaint for complaint in seen.complaints)


def test_versions_of_a_dataset_show_their_drift_and_users(browser: Browser, stack: Stack) -> None:
    seen = visit(browser, stack, "drifted")
    page = seen.page
    with seen.client() as client:
        ended(client, submit(client, epochs=1, name="on-iris"))
        head, *rows = IRIS.read_text().splitlines()
        assert head.split(",")[2] == "petal_length"
        cells = [row.split(",") for row in rows]
        moved = [[a, b, str(float(length) + 3), *rest] for a, b, length, *rest in cells]
        text = "\n".join([head, *(",".join(row) for row in moved)])
        query = {"name": "iris", "target": "species"}
        second = client.put("/v1/datasets", params=query, content=text.encode()).raise_for_status().json()["id"]
        wait_for(lambda: client.get(f"/v1/datasets/{second}").json()["state"] == "ready", what="the check")
    seen.go(f"datasets/{second}")
    drift = page.get_by_role("table", name="Drift")
    drift.wait_for()  # against the version before, without being asked
    first = drift.locator("tbody tr").first
    assert first.locator("th").inner_text() == "petal_length"
    assert "drifted" in first.inner_text()
    assert page.get_by_text("1 of 5 drifted.").count() == 1  # four columns, and the classes
    assert page.get_by_role("img", name=re.compile("^petal_length: from")).count() == 1
    seen.picture("dataset")
    page.get_by_role("link", name="1", exact=True).click()
    page.get_by_role("link", name="on-iris").wait_for()
    seen.check()


def test_a_folder_is_dropped_and_becomes_a_dataset(browser: Browser, stack: Stack, tmp_path: Path) -> None:
    folder = tmp_path / "shapes"
    for name, value in {"dark": 20, "bright": 220}.items():
        (folder / name).mkdir(parents=True)
        for number in range(60):  # more in all than one read of a folder gives
            Image.new("L", (8, 8), value + number % 7).save(folder / name / f"{number}.png")
    seen = visit(browser, stack, "folders")
    page = seen.page
    seen.go("datasets")
    box = page.get_by_role("form", name="Upload").bounding_box()
    assert box is not None
    dropped = {"items": [], "files": [str(folder)], "dragOperationsMask": 1}
    place = {"x": box["x"] + 20, "y": box["y"] + 5, "data": dropped}
    devtools = page.context.new_cdp_session(page)
    for kind in ("dragEnter", "dragOver", "drop"):
        devtools.send("Input.dispatchDragEvent", {"type": kind, **place})
    assert page.get_by_label("Name").input_value() == "shapes"
    page.get_by_role("button", name=re.compile("^Upload")).click()
    page.get_by_role("link", name="shapes:1").wait_for()
    with seen.client() as client:
        found = wait_for(lambda: _checked(client, "shapes"), what="the check")
        assert (found["state"], found["samples"], found["classes"]) == ("ready", 120, ["bright", "dark"])
    seen.check()


def _checked(client: httpx.Client, name: str) -> dict[str, object] | None:
    found: dict[str, object] = client.get(f"/v1/datasets/{name}").json()
    return found if found["state"] in ("ready", "invalid") else None


def test_augmented_samples_are_shown_before_submitting(browser: Browser, stack: Stack, data: Path) -> None:
    seen = visit(browser, stack, "augmented")
    page = seen.page
    with seen.client() as client:
        client.put(
            "/v1/datasets", params={"name": "digits"}, content=(data / "digits.zip").read_bytes()
        ).raise_for_status()
        wait_for(lambda: client.get("/v1/datasets/digits").json()["state"] == "ready", what="the dataset")
    seen.go("submit?dataset=digits")
    text = page.get_by_label("Spec (YAML or JSON)")
    text.fill("dataset: digits\nmodel: {kind: cnn, channels: [8]}\naugment: [{kind: rotate, degrees: 20}]\n")
    page.get_by_role("button", name="Show augmented samples").click()
    picture = page.get_by_role("img", name="Augmented samples of digits")
    picture.wait_for()
    assert picture.evaluate("image => image.naturalWidth") > 100
    seen.check()


def test_folds_have_a_mean_with_a_band_and_a_model_is_tried(browser: Browser, stack: Stack) -> None:
    seen = visit(browser, stack, "folds")
    page = seen.page
    with seen.client() as client:
        ended(client, submit(client, name="tried"))
        spec = {"dataset": "iris", "model": {"kind": "mlp", "hidden": [8]}, "train": {"epochs": 5, "batch_size": 32}}
        plan = {"kind": "kfold", "name": "three", "folds": 3, "spec": spec}
        experiment = client.post("/v1/experiments", json=plan).json()["id"]
        path = f"/v1/experiments/{experiment}"
        wait_for(lambda: client.get(path).json()["state"] == "succeeded", what="the experiment")
        results = client.get(f"{path}/results").json()
    seen.go("experiments")
    page.get_by_role("link", name="three").click()
    trials = page.get_by_role("table", name="Trials")
    wait_for(lambda: trials.locator("tbody tr").count() == 3, what="three trials")
    (summary,) = [one for one in results["summaries"] if one["metric"] == results["metric"]]
    assert f"{summary['mean']:.4g}"[:5] in page.get_by_role("table", name="Means with their intervals").inner_text()
    page.get_by_role("link", name=re.compile("^Compare")).click()
    page.get_by_label("mean of seeds and folds").check()
    drawn = curve(page, "validation loss")
    wait_for(lambda: drawn.get_attribute("data-points") == "5", seconds=60, what="one line of five epochs")
    seen.go("models")
    page.get_by_role("link", name="tried:1").click()
    page.get_by_label("petal_length").fill("1.3")
    page.get_by_label("petal_width").fill("0.2")
    page.get_by_role("button", name="Predict").click()
    assert "setosa" in page.locator(".answer").inner_text()
    seen.check()


def test_twenty_jobs_are_compared_with_a_paired_test(browser: Browser, stack: Stack) -> None:
    seen = visit(browser, stack, "twenty")
    page = seen.page
    with seen.client() as client:
        jobs = sweep(client)
        assert len(jobs) == 20
        query = {"jobs": ",".join(jobs), "metric": "val_loss", "baseline": jobs[5]}
        expected = client.get("/v1/metrics/comparison", params=query).json()["groups"]
    seen.go(f"compare?jobs={','.join(jobs)}&baseline={jobs[5]}&metrics=val_loss,val_accuracy")
    page.get_by_role("heading", name="Compare 20 jobs").wait_for()
    drawn = curve(page, "validation loss")
    wait_for(lambda: drawn.get_attribute("data-points") == ",".join(["6"] * 20), seconds=60, what="20 curves")
    results = page.get_by_role("table", name="Best values; differences from the baseline")
    assert results.locator("tbody tr").count() == 20
    fields = page.get_by_role("table", name="Fields of the specs that differ")
    assert fields.locator("tbody th").all_inner_texts() == ["optimizer.lr", "train.seed"]
    assert fields.locator("tbody tr").first.locator("td").count() == 20
    assert page.locator("svg circle").count() == 20
    assert page.get_by_role("img", name="Parallel coordinates of 20 jobs").locator("polyline").count() == 20
    # seeds of a rate against the same seeds of another rate, as the service tests them
    page.get_by_label("Metric of the test").select_option("val_loss")
    tests = page.get_by_role("table", name="Means with 95 % intervals")
    tests.get_by_role("row", name="lr=0.3 ").wait_for()
    rows = tests.locator("tbody tr")
    assert [rows.nth(at).locator("th").inner_text() for at in range(4)] == [
        f"lr={x}" for x in (0.0003, 0.003, 0.03, 0.3)
    ]
    assert "baseline" in rows.nth(1).inner_text()
    for at in (0, 2, 3):
        shown = rows.nth(at).locator("td").all_inner_texts()
        assert (shown[0], shown[3]) == ("5", "5")  # runs, and pairs
        assert shown[4] == f"{expected[at]['comparison']['difference']:+.4g}" or "e" in shown[4]
    page.get_by_label("mean of seeds and folds").check()
    wait_for(lambda: drawn.get_attribute("data-points") == "6,6,6,6", seconds=60, what="four bands")
    seen.picture("compare")
    seen.go(f"compare?jobs={jobs[0]},{jobs[5]},{jobs[10]}")
    page.get_by_text("No paired test").wait_for()
    seen.check()


def test_seeds_are_one_row_with_mean_and_band(browser: Browser, stack: Stack) -> None:
    seen = visit(browser, stack, "twenty")
    page = seen.page
    with seen.client() as client:
        jobs = sweep(client)
        best = [client.get(f"/v1/jobs/{job}").json()["metrics"]["best"]["val_accuracy"] for job in jobs[10:15]]
        experiment = client.get("/v1/experiments").json()["data"][0]["id"]
    seen.go(f"experiments/{experiment}")
    importance = page.get_by_role("table", name="Importance of parameters").locator("tbody th")
    importance.first.wait_for()
    assert importance.all_inner_texts() == ["/optimizer/lr", "/train/seed"]
    with page.expect_download() as saved:
        page.get_by_role("button", name="History").click()
    assert saved.value.suggested_filename == "rates-history.md"
    assert "0.0003" in Path(saved.value.path()).read_text()
    seen.go("jobs?columns=val_accuracy&sort=name")
    page.get_by_role("link", name="rates").first.wait_for()
    page.get_by_label("Group seeds and folds").check()
    page.wait_for_url("**grouped=1*")
    groups = page.locator("tr.group")
    assert groups.count() == 4
    last = groups.filter(has_text="lr 0.03")
    assert "5 succeeded" in last.inner_text()
    assert f"{statistics.mean(best):.4g}"[:5] in last.locator("td.num").first.inner_text()
    assert f"± {float(f'{statistics.stdev(best):.2g}')}" in last.locator("td.num").first.inner_text()
    last.locator("svg polygon").wait_for()  # the band
    seen.picture("groups")
    unfold = last.get_by_role("button")
    unfold.press("Enter")
    assert unfold.get_attribute("aria-expanded") == "true"
    assert page.locator("tbody tr:not(.group) td.name").count() == 5 + 1  # and the job that has no repetition
    page.reload()  # what is unfolded is in the address
    wait_for(lambda: page.locator("tbody tr:not(.group) td.name").count() == 6, seconds=60, what="the members")
    last.get_by_role("checkbox").check()
    page.get_by_role("link", name="Compare").click()
    page.get_by_role("heading", name="Compare 5 jobs").wait_for()
    seen.check()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser: Browser, stack: Stack, scheme: str) -> None:
    seen = visit(browser, stack, f"axe-{scheme}", color_scheme=scheme)
    page = seen.page
    with seen.client() as client:
        seeds = [{"epochs": 3, "seed": seed} for seed in range(2)]
        jobs = [submit(client, name=f"axe-{seed['seed']}", train={**seed, "batch_size": 32}) for seed in seeds]
        for job in jobs:
            ended(client, job)
        (model, *_) = client.get("/v1/models").json()["data"]
        dataset = client.get("/v1/datasets/iris").json()["id"]
    details = [f"jobs/{jobs[0]}?tab={tab}" for tab in ("curves", "evaluation", "log", "timeline", "files", "spec")]
    found = []
    for place in (
        *PAGES,
        *details,
        "jobs?grouped=1",
        f"compare?jobs={','.join(jobs)}",
        f"models/{model['id']}",
        f"datasets/{dataset}",
    ):
        seen.go(place)
        settle(page)
        page.evaluate(AXE.read_text() + "; undefined")
        result = page.evaluate("axe.run({resultTypes: ['violations']})")
        found += [
            (place, one["id"], [node["html"][:120] for node in one["nodes"][:3]])
            for one in result["violations"]
            if one["impact"] in ("serious", "critical")
        ]
    assert found == []


def test_nothing_is_wider_than_a_phone(browser: Browser, stack: Stack) -> None:
    seen = visit(browser, stack, "phone", viewport={"width": 390, "height": 844})
    page = seen.page
    with seen.client() as client:
        job = submit(client, name="a job with quite a long name, as people give them " * 2)
        ended(client, job)
        other = submit(client, train={"epochs": 20, "batch_size": 32, "seed": 1})
        ended(client, other)
        dataset = client.get("/v1/datasets/iris").json()["id"]
    wide = []
    details = [f"jobs/{job}{tab}" for tab in ("", "?tab=evaluation", "?tab=spec")]
    for place in (*PAGES, *details, "jobs?grouped=1", f"compare?jobs={job},{other}", f"datasets/{dataset}"):
        seen.go(place)
        settle(page)
        if (width := page.evaluate("document.documentElement.scrollWidth")) > 390:
            wide.append((place, width))
    assert wide == []


def test_the_keyboard_is_enough(browser: Browser, stack: Stack) -> None:
    seen = visit(browser, stack, "keyboard")
    page = seen.page
    with seen.client() as client:
        job = submit(client, name="by-keys", epochs=5)
        ended(client, job)
    link = page.get_by_role("link", name="by-keys")
    link.wait_for()
    reached = False
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "by-keys":
            reached = True
            break
    assert reached
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Delete").wait_for()
    page.get_by_role("button", name="Delete").focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    dialog.wait_for()
    for _ in range(4):
        page.keyboard.press("Tab")
        # Chromium lets the focus leave a modal dialog for its own bars only
        assert page.evaluate("document.activeElement === document.body || !!document.activeElement.closest('dialog')")
    page.keyboard.press("Escape")
    dialog.wait_for(state="detached")
    assert page.evaluate("document.activeElement.textContent") == "Delete"
    seen.check()


def test_form_and_text_of_a_spec_are_in_step(browser: Browser, stack: Stack) -> None:
    seen = visit(browser, stack, "forms")
    page = seen.page
    with seen.client() as client:
        ended(client, submit(client))
        seen.go("submit?dataset=iris")
        text = page.get_by_label("Spec (YAML or JSON)")
        page.get_by_label("Start from").select_option("cancer-table")
        page.wait_for_url("**example=cancer-table*")
        wait_for(lambda: "cancer" in text.input_value(), seconds=60, what="the example")
        assert "iris" in text.input_value()
        page.get_by_label("Start from").select_option("a small network")
        wait_for(lambda: "cancer" not in text.input_value(), seconds=60, what="the small network")
        page.get_by_text("The spec is valid.").wait_for()
        seen.picture("submit")
        page.get_by_label("lr", exact=True).fill("0.02")
        page.get_by_label("lr", exact=True).press("Tab")
        assert "lr: 0.02" in text.input_value()
        text.fill(text.input_value().replace("hidden: [64, 32]", "hidden: [7]"))
        hidden = page.get_by_label("hidden", exact=True)
        wait_for(lambda: hidden.input_value() == "7", seconds=30, what="the form to follow the text")
        text.fill(text.input_value().replace("lr: 0.02", "lr: -1"))
        page.get_by_text("/optimizer/lr", exact=True).wait_for()
        assert page.get_by_role("button", name="Submit").is_disabled()
        page.get_by_label("lr", exact=True).fill("0.03")
        page.get_by_label("lr", exact=True).press("Tab")
        page.get_by_text("The spec is valid.").wait_for()
        page.get_by_role("button", name="Submit").click()
        page.locator(".badge.state-succeeded").wait_for()
        job = client.get(f"/v1/jobs/{page.url.rsplit('/', 1)[1]}").json()
        assert (job["spec"]["optimizer"]["lr"], job["spec"]["model"]["hidden"]) == (0.03, [7])
    assert all("422" in complaint for complaint in seen.complaints)
