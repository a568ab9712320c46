"""Upload by name, train two networks, compare them, put the better one into production and predict with it.

The client `trainkit_api` is generated from the service's own description:

    curl -s -H "Authorization: Bearer $TRAINKIT_KEY" $TRAINKIT_URL/openapi.json > openapi.json
    openapi-python-client generate --path openapi.json --config ../openapi-python-client.yaml --meta none \\
        --output-path trainkit_api
    python to_production.py cancer.csv one-sample.csv
"""

import csv
import os
import sys
import time
from io import BytesIO
from pathlib import Path

from trainkit_api import AuthenticatedClient
from trainkit_api.api.datasets import get_dataset, upload_dataset
from trainkit_api.api.jobs import create_job, get_job
from trainkit_api.api.metrics import get_job_metrics
from trainkit_api.api.models import predict, set_model_alias
from trainkit_api.models import (
    Dataset,
    DatasetRef,
    EmaMomentum,
    Job,
    JobSpec,
    MetricRows,
    Mlp,
    Predictions,
    PredictRequest,
    ProblemDocument,
    TrainSpec,
)
from trainkit_api.types import File

client = AuthenticatedClient(os.environ["TRAINKIT_URL"], os.environ["TRAINKIT_KEY"], timeout=60)


def main(table: Path, sample: Path) -> None:
    file = File(BytesIO(table.read_bytes()), table.name)
    dataset = checked(upload_dataset.sync(client=client, body=file, name="cancer", target="diagnosis"), Dataset)
    while dataset.state not in ("ready", "invalid"):
        time.sleep(0.2)
        dataset = checked(get_dataset.sync(dataset.id, client=client), Dataset)
    print(f"{dataset.name}:{dataset.version} is {dataset.state}: {dataset.samples} samples")

    jobs = [train(Mlp(kind="mlp", hidden=[32, 16])), train(Mlp(kind="mlp", hidden=[4]))]
    best = max(jobs, key=lambda job: job.metrics.best["val_accuracy"] or 0.0)
    for job in jobs:
        mark = "*" if job is best else " "
        print(f"{mark} {job.name}: validation accuracy {job.metrics.best['val_accuracy']:.3f}")

    model = best.result.model
    set_model_alias.sync(model, "production", client=client)
    with sample.open() as lines:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(lines)]
    answer = predict.sync(f"{best.name}@production", client=client, body=PredictRequest(inputs=rows))
    for prediction in checked(answer, Predictions).predictions:
        print(f"predicted: {prediction.label} ({prediction.probabilities[prediction.label]:.3f})")


def train(model: Mlp) -> Job:
    """Submit a job, follow its metrics, and return it as it ended."""
    spec = JobSpec(
        name="cancer-" + "-".join(map(str, model.hidden)),
        dataset=DatasetRef(id="cancer", target="diagnosis"),
        model=model,
        optimizer=EmaMomentum(kind="ema_momentum", lr=0.1),
        train=TrainSpec(epochs=20, batch_size=32),
    )
    job = checked(create_job.sync(client=client, body=spec), Job)
    after, done = 0, False
    while not done:
        page = checked(
            get_job_metrics.sync(job.id, client=client, after=after, names="val_accuracy", wait=5), MetricRows
        )
        for row in page.data:
            print(f"  {job.name} epoch {row.epoch}: {row.split}_{row.name} {row.value:.3f}")
        after, done = page.next_, page.done
    job = checked(get_job.sync(job.id, client=client), Job)
    if job.error:
        sys.exit(f"{job.name} failed: {job.error.message} {job.error.hint}")
    return job


def checked(answer, kind):
    """The answer, if it is one of that type; end with what the service says otherwise."""
    if isinstance(answer, ProblemDocument):
        sys.exit(f"{answer.status} {answer.code}: {answer.detail}")
    assert isinstance(answer, kind), answer
    return answer


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
