"""A run with a planted fault is investigated by a real worker, whose process is killed in the middle."""

from __future__ import annotations

import pytest

from tests.support.api_steps import job_of, submit, upload, wait_until
from tests.support.planted_tables import UNSCALED, wine
from tests.support.stack import Stack, training_processes, wait_for

pytestmark = pytest.mark.parametrize("stack", ["sqlite"], indirect=True)


def test_an_investigation_names_the_planted_fault_though_its_process_is_killed(stack: Stack) -> None:
    file = stack.folder / "wine.csv"
    file.write_bytes(wine())
    with stack.client() as client:
        dataset = upload(client, file, target="target")
        job = submit(client, {"dataset": dataset, **UNSCALED})
        wait_until(client, job, "succeeded")
        before = client.get(f"/v1/jobs/{job}/diagnosis")
        begun = client.post(f"/v1/jobs/{job}/diagnosis:investigate", json={"seconds": 20})
        assert begun.status_code == 201, begun.text
        investigation = begun.json()["id"]
        wait_for(lambda: (job_of(client, investigation)["progress"] or {}).get("step", 0) >= 2, what="two variants")
        for process in wait_for(lambda: training_processes(stack, investigation), seconds=30, what="its process"):
            process.kill()
        ended = wait_until(client, investigation, "succeeded")
        lost, last = client.get(f"/v1/jobs/{investigation}/attempts").json()["data"]
        assert (lost["outcome"], last["outcome"]) == ("lost", "succeeded")
        assert last["resumed_from_step"] >= 2
        assert ended["result"]["verdict"] == "unscaled_inputs"
        after = client.get(f"/v1/jobs/{job}/diagnosis", headers={"If-None-Match": before.headers["ETag"]})
        assert after.status_code == 200
        found = after.json()
        first, scaled = found["verdicts"][0], {"preprocess": [{"kind": "z_score"}]}
        index, recommended = next((i, one) for i, one in enumerate(found["recommendations"]) if one["patch"] == scaled)
        assert (first["code"], first["source"]) == ("unscaled_inputs", "investigation")
        assert recommended["measured"]["low"] > 0
        assert client.get(first["plot"]).content.startswith(b"\x89PNG")
        follower = client.post("/v1/jobs", json={"from_diagnosis": {"job": job, "index": index}}).json()["id"]
        best = wait_until(client, follower, "succeeded")["metrics"]["best"]
        measured = recommended["measured"]
        assert best["val_loss"] < measured["before"] - measured["low"] / 2
