"""The tutorial with the Python SDK: upload, train, predict, diagnose, train what the diagnosis recommends.

    pip install trainkit-client
    python examples/sdk.py demo-output          # a folder with digits.zip, as examples/make_data.py writes it

The service is found by TRAINKIT_URL and TRAINKIT_KEY, a profile, or a `trainkit up` on this machine.
"""

import sys
from pathlib import Path

from trainkit_client import Client, Invalid, Job


def show(job: Job) -> None:
    """Print how far a job is."""
    if job.progress is not None:
        accuracy = job.metric_values.last.get("val_accuracy")
        print(f"  {job.state}: {job.progress.percent or 0:.0f} %, validation accuracy {accuracy or 0:.3f}")


def main(folder: Path) -> None:
    """Walk through the tutorial."""
    with Client() as client:
        dataset = client.datasets.upload(folder / "digits.zip", "digits").wait()
        print(f"{dataset.name}:{dataset.version} has {dataset.samples} images of {len(dataset.classes or [])} classes")

        try:
            client.jobs.validate(dataset=dataset, model="mlpp", optimizer={"kind": "adam", "lrr": 0.01})
        except Invalid as error:
            print(*(f"  {item.pointer}: {item.hint}" for item in error.errors), sep="\n")

        job = client.jobs.create(
            name="first",
            dataset=dataset,
            model={"kind": "cnn", "channels": [16, 32]},
            optimizer={"kind": "adam", "lr": 0.005},
            train={"epochs": 12},
            early_stop=[{"kind": "patience", "monitor": "val_accuracy", "patience": 5}],
        )
        job.wait(on_progress=show, check=True)
        print(f"test accuracy {job.evaluation().metrics['accuracy']:.3f}")
        losses = [row.value for row in job.metrics(names="val_loss")]
        print(f"{len(losses)} values of val_loss; curves in {job.download('curves.png', folder)}")

        model = job.model()
        print(f"held-out-7.png is a {model.predict(folder / 'held-out-7.png').labels[0]}")
        model.alias("production")
        print(f"downloaded {model.download(folder / 'digits.safetensors').name}")

        slow = client.jobs.create(
            name="slow",
            dataset=dataset,
            model={"kind": "mlp", "hidden": [64]},
            optimizer={"kind": "adam", "lr": 0.000001},
            train={"epochs": 5},
        ).wait(check=True)
        diagnosis = slow.diagnosis()
        if not diagnosis.recommendations:  # the record alone does not tell: short runs with one change each do
            slow.investigate(jobs=6).wait(check=True)
            diagnosis = slow.diagnosis()
        print(f"the slow run: {diagnosis.verdicts[0].code}; try {diagnosis.recommendations[0].patch}")
        better = slow.apply_recommendation(0).wait(check=True)
        before, after = (run.evaluation().metrics["accuracy"] or 0 for run in (slow, better))
        print(f"accuracy {before:.3f} became {after:.3f}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo-output"))
