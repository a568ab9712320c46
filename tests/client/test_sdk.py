"""The objects of the SDK against a real service: jobs, models, experiments, keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas
import polars
import pytest
from PIL import Image

from tests.support.stack import Stack, wait_for
from trainkit.spec import JobSpec
from trainkit_client import (
    AmbiguousReference,
    Client,
    Conflict,
    Dataset,
    Forbidden,
    Invalid,
    Job,
    JobFailed,
    NotFound,
    WaitTimeout,
    types,
)
from trainkit_client.progress import LiveCurves

SMALL: dict[str, Any] = {"model": {"kind": "mlp", "hidden": [8]}, "train": {"epochs": 3}, "early_stop": []}
LONG: dict[str, Any] = {**SMALL, "train": {"epochs": 99_000}}


@pytest.fixture
def digits(client: Client, data: Path) -> Dataset:
    """1796 images in ten classes; sent once."""
    return client.datasets.upload(data / "digits.zip", "digits").wait()


@pytest.fixture
def cancer(client: Client, data: Path) -> Dataset:
    """569 rows with 30 numbers and a diagnosis."""
    return client.datasets.upload(data / "cancer.csv", "cancer", target="diagnosis").wait()


def test_a_spec_may_be_given_in_any_form(client: Client, digits: Dataset, tmp_path: Path) -> None:
    text = "dataset: digits\nmodel: {kind: mlp, hidden: [8]}\noptimizer: {kind: adam, lr: 1e-2}\ntrain: {epochs: 3}\n"
    (tmp_path / "spec.yaml").write_text(text)
    model = JobSpec.model_validate(
        {"dataset": "digits", "model": {"kind": "mlp", "hidden": [8]}, "optimizer": {"kind": "adam", "lr": 0.01}}
    )
    resolved = [
        client.jobs.validate(text).spec,
        client.jobs.validate(tmp_path / "spec.yaml").spec,
        client.jobs.validate(str(tmp_path / "spec.yaml"), name="").spec,  # read by the client, for the other field
        client.jobs.validate(model, train={"epochs": 3}).spec,
        client.jobs.validate(
            dataset=digits,
            model={"kind": "mlp", "hidden": (8,)},
            optimizer={"kind": "adam", "lr": np.float64(0.01)},
            train={"epochs": 3},
        ).spec,
    ]
    for spec in resolved:
        spec["dataset"].pop("id")
    assert all(spec == resolved[0] for spec in resolved)
    with pytest.raises(Invalid) as raised:
        client.jobs.validate(dataset="digits", model="mlpp", optimizer={"kind": "adam", "lrr": 1})
    assert {error.pointer for error in raised.value.errors} == {"/model", "/optimizer/lrr"}


def test_a_job_from_its_beginning_to_its_model(client: Client, digits: Dataset, tmp_path: Path) -> None:
    job = client.jobs.create(dataset=digits, name="whole", labels={"team": "sdk"}, **SMALL)
    seen: list[str] = []
    assert job.wait(on_progress=lambda current: seen.append(current.state), check=True) is job
    assert seen[-1] == "succeeded"
    assert job.result is not None
    assert job.metric_values.best["val_accuracy"] is not None
    assert [event.to_state for event in job.events()][-1] == "succeeded"
    assert job.attempt_history().first() is not None
    assert job.evaluation().metrics["accuracy"] is not None
    assert job.diagnosis().verdicts
    assert job.plot("confusion").startswith(b"\x89PNG")
    assert job.download("log.txt", tmp_path).read_text()
    assert job.model().id == job.result.model
    with pytest.raises(NotFound):
        job.recommendation()
    assert job.update(notes="first of all") is job
    assert job.notes == "first of all"
    frame = job.metrics(names=["train_loss", "val_loss"]).to_pandas()
    assert set(frame["name"]) == {"loss"}
    assert len(frame) == 6
    assert job.metrics(names=["train_loss", "val_loss"]).to_polars()["value"].to_list() == list(frame["value"])
    assert job.metrics(names=["train_loss", "val_loss"]).to_arrow()["value"].to_pylist() == list(frame["value"])
    jobs = client.jobs.list(labels={"team": "sdk"}, where="metric.val_accuracy>=0")
    assert [row.id for row in jobs] == [job.id]
    row = jobs.first()
    assert row is not None
    assert row.load().spec == job.spec
    assert "metrics.best.val_accuracy" in jobs.to_pandas().columns


def test_a_job_is_found_by_name_by_a_beginning_and_as_the_last(client: Client, digits: Dataset) -> None:
    first = client.jobs.create(dataset=digits, name="twin", **SMALL)
    assert client.jobs.get("twin").id == client.jobs.get("@last").id == first.id
    second = client.jobs.create(dataset=digits, name="twin", **SMALL)
    assert client.jobs.get("@last").id == second.id
    beginning = next(second.id[:length] for length in range(5, 30) if not first.id.startswith(second.id[:length]))
    assert client.jobs.get(beginning).id == second.id
    for ambiguous in ("twin", "job_"):
        with pytest.raises(AmbiguousReference) as raised:
            client.jobs.get(ambiguous)
        assert {first.id, second.id} <= set(raised.value.candidates)
    with pytest.raises(NotFound):
        client.jobs.get("no such job")
    client.jobs.wait([first, second])
    second.delete()
    with pytest.raises(NotFound):
        second.refresh()


def running(job: Job) -> Job:
    wait_for(lambda: job.refresh().state == "running" and (job.progress and job.progress.step > 0), what="training")
    return job


def test_stop_pause_resume_fork_retry_cancel(client: Client, digits: Dataset) -> None:
    job = running(client.jobs.create(dataset=digits, name="long", **LONG))
    with pytest.raises(WaitTimeout):
        job.wait(0.3)
    job.pause()
    wait_for(lambda: job.refresh().state == "paused", what="the pause")
    assert job.resume().id == job.id
    running(job)
    with pytest.raises(Conflict):
        job.stop(if_seq=0)
    job.stop(keep="last").wait(check=True)
    assert job.state == "stopped"
    assert job.model().name == "long"
    forked = job.fork({"train": {"epochs": 99_001}})
    assert (forked.id != job.id, forked.parent and forked.parent.job) == (True, job.id)
    forked.cancel()
    with pytest.raises(JobFailed) as raised:
        forked.wait(check=True)
    assert raised.value.job.state == "cancelled"
    again = job.retry()
    assert again.parent is not None
    assert again.cancel().wait().state == "cancelled"


def test_every_form_of_rows_gives_the_same_predictions(
    client: Client, cancer: Dataset, data: Path, tmp_path: Path
) -> None:
    model = client.jobs.create(dataset=cancer, name="forms", **SMALL).wait(check=True).model()
    frame = pandas.read_csv(data / "cancer.csv").drop(columns="diagnosis").head(5)
    frame.to_csv(tmp_path / "rows.csv", index=False)
    frame.to_parquet(tmp_path / "rows.parquet")
    forms = [
        frame,
        polars.from_pandas(frame),
        polars.from_pandas(frame).to_arrow(),
        frame.to_dict(orient="records"),
        tmp_path / "rows.csv",
        str(tmp_path / "rows.parquet"),
    ]
    first, *others = [model.predict(form) for form in forms]
    assert len(first) == 5
    assert all(predictions == first for predictions in others)
    assert list(first.to_pandas()["label"]) == first.labels
    one = model.predict(frame.iloc[0].to_dict())[0]  # a row by itself is summed in another order
    assert (one.label, one.probabilities) == (first[0].label, pytest.approx(first[0].probabilities, abs=1e-6))
    with pytest.raises(Invalid, match="extra"):
        model.predict(frame.assign(extra=1))
    assert model.predict(frame.assign(extra=1), ignore_extra=True).labels == first.labels
    labelled = pandas.read_csv(data / "cancer.csv")
    whole = model.evaluate(cancer).metrics
    assert model.evaluate(labelled).metrics == pytest.approx(whole)
    assert model.evaluate(data / "cancer.csv").metrics == pytest.approx(whole)
    assert model.evaluate("cancer", part="test").metrics == pytest.approx(client.jobs.get("forms").evaluation().metrics)


def test_every_form_of_images_gives_the_same_predictions(client: Client, digits: Dataset, data: Path) -> None:
    job = client.jobs.create(dataset=digits, name="images", **SMALL).wait(check=True)
    model = client.models.get("images")
    assert model.id == job.model().id
    path = data / "held-out-7.png"
    image = Image.open(path)
    singles = [model.predict(form) for form in (path, str(path), image, path.read_bytes())]
    assert all(predictions == singles[0] for predictions in singles)
    assert model.predict([path, image]).to_pandas().equals(model.predict([image, str(path)]).to_pandas())
    assert model.predict([path, image]).labels == singles[0].labels * 2
    pixels = np.asarray(image)
    assert model.predict(pixels[None]).labels == singles[0].labels
    with pytest.raises(ValueError, match="first axis"):
        model.predict(pixels.ravel())


def test_models_are_named_downloaded_and_removed(client: Client, digits: Dataset, tmp_path: Path) -> None:
    client.jobs.create(dataset=digits, name="released", **SMALL).wait(check=True)
    model = client.models.get("released")
    model.alias("production")
    assert client.models.get("released@production").id == model.id
    assert model.alias_history().first() is not None
    for format, beginning in (("safetensors", b"{"), ("zip", b"PK"), ("onnx", b"")):
        path = model.download(tmp_path, format=format)
        assert beginning in path.read_bytes()[:16]
    assert model.update(notes="ready", labels={"stage": "a"}).labels == {"stage": "a"}
    with pytest.raises(Conflict):
        model.delete()
    model.remove_alias("production")
    model.delete()
    with pytest.raises(NotFound):
        client.models.get("released")


def test_an_experiment_and_its_table(client: Client, cancer: Dataset) -> None:
    experiment = client.experiments.create(
        kind="kfold", name="folds", folds=3, spec={"dataset": {"id": cancer.id, "target": "diagnosis"}, **SMALL}
    )
    assert experiment.wait(check=True) is experiment
    assert experiment.state == "succeeded"
    frame = experiment.table().to_pandas()
    assert len(frame) == 3
    assert set(frame["state"]) == {"succeeded"}
    assert experiment.results().summaries
    assert client.experiments.get("folds").id == experiment.id
    assert client.jobs.list(group=experiment.id).to_pandas().shape[0] == 3
    row = client.experiments.list(name="folds").first()
    assert row is not None
    assert row.load().plan == experiment.plan


def test_keys_workers_and_whom_it_is(client: Client, service: Stack) -> None:
    assert client.workers().all()
    assert client.me().role == "admin"
    assert client.info().api_version == "v1"
    assert "optimizer" in client.catalog()
    key = client.keys.create("reader", role="viewer")
    assert key.key not in repr(key)
    with Client(service.url, key.key) as reader, pytest.raises(Forbidden):
        reader.jobs.create(dataset="digits", model="mlp")
    client.keys.revoke(key)
    assert client.keys.get(key).revoked_at is not None


def test_the_curves_of_a_notebook_are_drawn_from_what_was_seen() -> None:
    curves = LiveCurves()
    for epoch in range(1, 5):
        job = types.JobFields.model_validate(
            {
                "id": "job_1",
                "name": "<b>&",
                "state": "running",
                "progress": {"epoch": epoch, "epochs": 4, "percent": 25 * epoch},
                "metrics": {"last": {"train_loss": 1 / epoch, "val_loss": 2 / epoch}},
            }
        )
        curves.add(job)
        curves.add(job)  # the same epoch again is no new point
    drawn = ElementTree.fromstring(curves.svg())
    lines = [element.attrib["points"].split() for element in drawn if element.tag.endswith("polyline")]
    assert [len(points) for points in lines] == [4, 4]
    heights = [float(point.split(",")[1]) for point in lines[1]]
    assert heights == sorted(heights)  # a falling loss falls: y grows downwards
    assert "<b>&lt;b&gt;&amp;</b> running, epoch 4/4" in curves.html(job)
