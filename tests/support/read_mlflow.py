"""Print every run of an experiment as JSON, read with MLflow's client. Run by MLflow's own interpreter."""

from __future__ import annotations

import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any


def main(url: str, experiment: str) -> None:
    from mlflow.tracking import MlflowClient  # type: ignore[import-not-found]

    client = MlflowClient(url)
    found = client.get_experiment_by_name(experiment)
    print(json.dumps([shown(client, run) for run in client.search_runs([found.experiment_id])] if found else []))


def shown(client: Any, run: Any) -> dict[str, Any]:
    histories = {}
    for key in run.data.metrics:
        points = client.get_metric_history(run.info.run_id, key)
        histories[key] = [[point.step, finite(point.value), point.timestamp] for point in points]
    with tempfile.TemporaryDirectory() as folder:
        client.download_artifacts(run.info.run_id, "", folder)
        root = Path(folder)
        files = {str(file.relative_to(root)): file.read_bytes().hex() for file in root.rglob("*") if file.is_file()}
    inputs = [
        {"name": one.dataset.name, "digest": one.dataset.digest, "source": one.dataset.source}
        for one in run.inputs.dataset_inputs
    ]
    info = {"run_id": run.info.run_id, "name": run.info.run_name, "status": run.info.status}
    times = {"start_time": run.info.start_time, "end_time": run.info.end_time}
    data = {"params": run.data.params, "tags": run.data.tags, "metrics": histories}
    return {**info, **times, **data, "files": files, "datasets": inputs}


def finite(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


if __name__ == "__main__":
    main(*sys.argv[1:])
