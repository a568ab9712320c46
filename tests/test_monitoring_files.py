"""The examples for Prometheus and Grafana name metrics that exist, in forms that their tools read."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import yaml
from prometheus_client import ProcessCollector

from docs.generate import prometheus_families
from service.instrumentation import WORK_METRICS
from service.monitoring.request_metrics import REQUEST_METRICS
from tests.support.prometheus_text import names
from worker.metrics import WORKER_METRICS

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "examples" / "monitoring"
NAME = re.compile(r"\b((?:trainkit|process)_\w+)")


def exposed() -> dict[str, tuple[str, tuple[str, ...]]]:
    """(type, labels) of every metric family of the API and the workers."""
    return {name: (kind, labels) for name, (kind, labels, _, _) in prometheus_families().items()}


def dashboard() -> dict[str, Any]:
    return dict(json.loads((FOLDER / "grafana-dashboard.json").read_text()))


def expressions() -> list[str]:
    """Every query of the dashboard and the alerts."""
    shown = [target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", [])]
    rules = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"][0]["rules"]
    return [*shown, *(rule["expr"] for rule in rules)]


def test_every_metric_has_a_sentence_and_a_good_name() -> None:
    for metric in (*REQUEST_METRICS, *WORK_METRICS, *WORKER_METRICS):
        (family,) = metric.describe()
        assert family.documentation.endswith("."), family.name
        assert not {"job", "job_id", "id", "project", "key"} & set(metric._labelnames), family.name


def test_queries_ask_for_what_is_told() -> None:
    metrics = set(exposed()) | names(ProcessCollector(registry=None).collect())
    for expression in expressions():
        queried = NAME.findall(re.sub(r'"[^"]*"', "", expression))
        assert queried or expression.startswith("up{"), expression
        for name in queried:
            base = re.sub(r"_(bucket|count|sum)$", "", name)
            assert name in metrics or (base in metrics and exposed()[base][0] == "histogram"), f"{name} in {expression}"
        # `sum by (x)` of a label that no series has would add up what is meant apart
        for labels in re.findall(r"by \(([\w, ]+)\)", expression):
            known = {label for name in queried for label in exposed().get(re.sub(r"_bucket$", "", name), ("", ()))[1]}
            assert set(re.split(r", *", labels)) <= known | {"le", "instance", "job"}, expression


def test_the_dashboard_is_one_that_grafana_takes() -> None:
    board = dashboard()
    (source,) = board["templating"]["list"]
    assert (source["type"], source["query"]) == ("datasource", "prometheus")
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 30
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24, panel["title"]
        taken |= cells
        if panel["type"] == "row":
            continue
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]) >= 1
        assert panel["fieldConfig"]["defaults"]["unit"]


def check(promtool: str, *arguments: str, cwd: Path = FOLDER) -> None:
    done = subprocess.run([promtool, *arguments], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_takes_the_configuration(promtool: str, tmp_path: Path) -> None:
    for file in ("prometheus.yml", "alerts.yml"):
        (tmp_path / file).write_text((FOLDER / file).read_text())
    (tmp_path / "metrics-token").write_text("x")
    check(promtool, "check", "config", "prometheus.yml", cwd=tmp_path)


def test_every_alert_rings_when_it_should(promtool: str) -> None:
    check(promtool, "check", "rules", "alerts.yml")
    check(promtool, "test", "rules", "alerts_test.yml")
    rules = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"][0]["rules"]
    played = yaml.safe_load((FOLDER / "alerts_test.yml").read_text())["tests"]
    rung = {case["alertname"] for test in played for case in test["alert_rule_test"] if case.get("exp_alerts")}
    assert rung == {rule["alert"] for rule in rules}
    for rule in rules:
        assert set(rule["annotations"]) == {"summary", "action"}
        assert rule["labels"]["severity"] in ("critical", "warning")


def test_prometheus_reads_every_query_of_the_dashboard(promtool: str, tmp_path: Path) -> None:
    queries = [expression.replace("$__rate_interval", "5m") for expression in expressions()]
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries)]
    (tmp_path / "queries.yml").write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    check(promtool, "check", "rules", "queries.yml", cwd=tmp_path)
