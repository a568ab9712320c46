"""Jobs that scikit-learn fits, through a worker with a real training process."""

from __future__ import annotations

import json
import threading
import time

import pytest
from sqlalchemy import select

import trainkit.fit.loop.fit  # noqa: F401 - before the forks, as a worker does
from service.jobs import service as jobs
from service.jobs.tables import Artifact
from service.models.tables import Model
from tests.support.logged_rows import logged_rows
from tests.support.transactions import transact
from tests.support.worker_context import Place
from trainkit.fit import sklearn_baseline
from worker.previews import init_report_of
from worker.request_input import BadInputError
from worker.supervisor import claim_and_supervise


@pytest.mark.parametrize("kind", ["gradient_boosting", "rbf_svm"])
def test_a_sklearn_baseline_succeeds_and_leaves_no_model(place: Place, kind: str) -> None:
    job_id = place.submit(place.table(), model={"kind": kind})
    assert claim_and_supervise(place.context, "train")
    job = place.job(job_id)
    assert (job.state, job.stop_reason, job.error) == ("succeeded", "completed", None)
    assert (job.result["model"], job.result["best_epoch"]) == (None, 1)
    assert job.result["test"] == job.evaluation["metrics"]
    assert job.metrics_last["val_loss"] == job.metrics_best["val_loss"]
    assert (job.runtime["device"], "scikit-learn" in job.runtime["versions"]) == ("cpu", True)
    with place.context.sessions() as session:
        assert session.scalars(select(Model)).all() == []
        names = set(session.scalars(select(Artifact.name).where(Artifact.job_id == job_id)))
        rows = logged_rows(session, job_id)
    assert names == {"confusion.png", "log.txt"}
    assert {row.row.epoch for row in rows} == {1}
    assert len(place.attempts(job_id)) == 1


def test_a_fit_is_paused_and_fitted_anew_when_it_goes_on(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = place.submit(place.table(), model={"kind": "rbf_svm"})
    fit = sklearn_baseline._fit
    monkeypatch.setattr(
        sklearn_baseline, "_fit", lambda *_: time.sleep(300)
    )  # the training process is a fork of this one

    def pause_when_it_fits() -> None:
        deadline = time.monotonic() + 60
        while place.job(job_id).phase != "fitting" and time.monotonic() < deadline:
            time.sleep(0.05)
        transact(place.service, jobs.pause, place.who, job_id)

    asking = threading.Thread(target=pause_when_it_fits)
    asking.start()
    assert claim_and_supervise(place.context, "train")
    asking.join()
    assert place.job(job_id).state == "paused"
    monkeypatch.setattr(sklearn_baseline, "_fit", fit)
    transact(place.service, jobs.resume, place.service, place.who, job_id)
    assert claim_and_supervise(place.context, "train")
    assert (place.job(job_id).state, len(place.attempts(job_id))) == ("succeeded", 2)


@pytest.mark.parametrize("model", [{"kind": "rbf_svm"}, {"kind": "ensemble", "members": ["mdl_a", "mdl_b"]}])
def test_an_init_report_wants_layers(place: Place, model: dict[str, object]) -> None:
    request = {"spec": {"dataset": "d", "model": model}, "format": "json"}
    with pytest.raises(BadInputError, match="no layers") as raised:
        init_report_of(place.context.storage.root, json.dumps(request).encode(), "application/json", {})
    assert (raised.value.error["status"], raised.value.error["pointer"]) == (422, "/model/kind")
