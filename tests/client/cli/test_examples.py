"""The example of every command's `--help` works, against a service that trains."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command
from typer.testing import CliRunner

from tests.support.api_steps import ROOT, example_spec
from tests.support.stack import TRAINKIT, Stack, wait_for
from trainkit_client import Client
from trainkit_client.cli import app

START_PROCESSES = ("trainkit up", "trainkit api", "trainkit worker", "trainkit mcp")
"""They run until they are stopped: the tests of `trainkit up`, of the stack and of the MCP server start them."""
ON_THE_SERVER = ("trainkit key ", "trainkit audit", "trainkit secrets", "trainkit migrate")
EXIT_CODES = {"trainkit secrets rotate": {0, 1, 2}}
"""Without a key of secrets there is nothing to rotate, and that is refused."""
MAY_BE_EMPTY = {"trainkit jobs logs digits --follow --level warning", "trainkit audit export --after 100"}
SPECS: dict[str, dict[str, Any]] = {
    "digits": {"train": {"epochs": 3, "checkpoint_seconds": 0}, "model": "mlp"},
    "digits-mlp": {"train": {"epochs": 2}, "model": {"kind": "mlp", "hidden": [32]}},
    "slow": {"train": {"epochs": 3}, "model": "mlp", "optimizer": {"kind": "adam", "lr": 1e-6}},
    "old": {"train": {"epochs": 1}, "model": "linear"},
    "cancer": {"train": {"epochs": 2}, "model": "mlp", "dataset": "cancer"},
}
LONG = {"name": "long", "dataset": "digits", "model": "mlp", "train": {"epochs": 100_000, "checkpoint_seconds": 0}}


def commands(group: Any, words: tuple[str, ...] = ("trainkit",)) -> Iterator[tuple[str, Any]]:
    """Every command that does something, with its words."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*words, name))
        else:
            yield " ".join((*words, name)), command


COMMANDS = dict(commands(get_command(app)))
EXAMPLES = [line.strip() for command in COMMANDS.values() for line in (command.epilog or "").splitlines()]


def test_every_command_has_an_example_of_itself() -> None:
    assert len(COMMANDS) > 45
    for words, command in COMMANDS.items():
        lines = (command.epilog or "").splitlines()
        assert lines, words
        assert all(line.startswith(words) for line in lines), words


class Bench:
    """A project with data, jobs and models of the names that the examples use."""

    def __init__(self, service: Stack, data: Path, folder: Path) -> None:
        self.service = service
        key = service.run("key", "create", "--project", "examples", "--role", "admin,operator").split()[-1]
        self.environment = {"TRAINKIT_URL": service.url, "TRAINKIT_KEY": key, "XDG_STATE_HOME": str(folder / "state")}
        self.client = Client(service.url, key)
        self.runner = CliRunner()
        for file in data.iterdir():
            if file.is_file():
                shutil.copy(file, folder)
        (folder / "job.yaml").write_text(
            yaml.safe_dump({"name": "reader", "dataset": "digits", "model": "mlp", "train": {"epochs": 2}})
        )
        for name in ("digits", "old-data"):
            self.client.datasets.upload(folder / "digits.zip", name=name).wait()
        self.client.datasets.upload(folder / "cancer.csv", name="cancer", target="diagnosis").wait()
        jobs = [self.client.jobs.create({"name": name, "dataset": "digits", **spec}) for name, spec in SPECS.items()]
        self.client.jobs.wait(jobs, 300, check=True)
        plan = yaml.safe_load((ROOT / "examples/experiments/cancer-folds.yaml").read_text())
        plan |= {
            "name": "plan",
            "folds": 2,
            "variants": {},
            "spec": example_spec("cancer-table", "cancer", train={"epochs": 2}),
        }
        plan["spec"].pop("name", None)
        (folder / "plan.yaml").write_text(yaml.safe_dump(plan))
        endless = {**plan, "name": "endless", "spec": {**plan["spec"], "train": {"epochs": 100_000}, "early_stop": []}}
        self.plans = {"old-plan": {**plan, "name": "old-plan"}, "endless": endless}
        self.known = {job.id for job in self.client.jobs.list()}

    def experiment(self, name: str, state: str) -> None:
        """Submit an experiment, and wait for a state."""
        identity = self.client.request("POST", "/v1/experiments", json=self.plans[name])["id"]
        wait_for(
            lambda: self.client.request("GET", f"/v1/experiments/{identity}")["state"] == state, what=f"{name} {state}"
        )

    def before(self, example: str) -> None:
        """Make what an example needs and the one before it may have used up."""
        if " long" in example:
            job = self.client.jobs.create(LONG)
            wait_for(lambda: self.client.jobs.get(job.id).state == "running", what="the long job")
            if " resume " in example:
                job.pause()
                wait_for(lambda: self.client.jobs.get(job.id).state == "paused", what="the pause")
        if "endless" in example:
            self.experiment("endless", "running")
        if "old-plan" in example:
            self.experiment("old-plan", "succeeded")

    def after(self) -> None:
        """Give the jobs that an example has made another name: names must mean one job."""
        for row in self.client.jobs.list():
            if row.id not in self.known:
                self.known.add(row.id)
                if not row.has_ended and row.name == "long":
                    row.cancel()
                row.update(name="of an example")

    def run(self, example: str) -> tuple[int, str]:
        """Run a command line; returns its exit code and what it printed."""
        words = shlex.split(example)[1:]
        if example.startswith(ON_THE_SERVER):
            done = subprocess.run(
                [TRAINKIT, *words], env=self.service.environment, capture_output=True, text=True, check=False
            )
            return done.returncode, done.stdout + done.stderr
        result = self.runner.invoke(app, words, env=self.environment)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.output


@pytest.fixture(scope="module")
def bench(service: Stack, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("bench")
    before = Path.cwd()
    os.chdir(folder)
    bench = Bench(service, data, folder)
    yield bench
    bench.client.close()
    os.chdir(before)


@pytest.mark.parametrize("example", [line for line in EXAMPLES if not line.startswith(START_PROCESSES)])
def test_the_example_works(bench: Bench, example: str) -> None:
    bench.before(example)
    code, output = bench.run(example)
    bench.after()
    assert code in EXIT_CODES.get(example, {0}), output
    assert output.strip() or example in MAY_BE_EMPTY


@pytest.mark.parametrize("example", [line for line in EXAMPLES if line.startswith(START_PROCESSES)])
def test_the_example_of_a_process_is_understood(example: str) -> None:
    words = shlex.split(example)[1:]
    result = CliRunner().invoke(app, [*words, "--help"])
    assert result.exit_code == 0
    for option in re.findall(r"(?<!\w)--[a-z-]+", example):
        assert option in result.output


# --- what all commands have in common ---


def test_exit_codes_and_where_text_goes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    run = bench.runner.invoke
    environment = bench.environment
    missing = run(app, ["jobs", "show", "nobody"], env=environment)
    assert (missing.exit_code, missing.stdout) == (3, "")
    assert missing.stderr.startswith("trainkit: There is no job")
    in_json = run(app, ["jobs", "show", "nobody", "--json"], env=environment)
    assert (in_json.exit_code, in_json.stdout) == (3, "")
    assert json.loads(in_json.stderr)["code"] == "not_found"
    assert run(app, ["jobs", "list", "--sort", "nothing"], env=environment).exit_code == 4
    assert run(app, ["jobs", "list", "--nothing"], env=environment).exit_code == 2
    assert run(app, ["jobs", "delete", "digits"], env=environment).exit_code == 2, "nobody can be asked"
    assert run(app, ["jobs", "submit", "absent.yaml"], env=environment).exit_code == 2
    assert run(app, ["jobs", "list"], env={**environment, "TRAINKIT_URL": "http://127.0.0.1:1"}).exit_code == 5
    assert run(app, ["jobs", "list"], env={**environment, "TRAINKIT_KEY": "tk_wrong"}).exit_code == 4


def test_json_is_the_services_own_document(bench: Bench) -> None:
    identity = bench.client.jobs.get("digits").id
    shown = bench.runner.invoke(app, ["jobs", "show", identity[:-3], "--json"], env=bench.environment)
    assert json.loads(shown.stdout) == bench.client.request("GET", f"/v1/jobs/{identity}")
    listed = bench.runner.invoke(app, ["jobs", "list", "--name", "digits", "--json"], env=bench.environment)
    assert json.loads(listed.stdout) == bench.client.request("GET", "/v1/jobs", params={"name": "digits"})["data"]
    quiet = bench.runner.invoke(app, ["jobs", "list", "--name", "digits", "-q"], env=bench.environment)
    assert quiet.stdout == f"{identity}\n"


def test_a_gate_fails_when_the_metric_is_missed(bench: Bench) -> None:
    words = ["models", "evaluate", "digits", "--dataset", "digits", "--require"]
    passed = bench.runner.invoke(app, [*words, "accuracy>=0.01"], env=bench.environment)
    missed = bench.runner.invoke(app, [*words, "accuracy>=1.01"], env=bench.environment)
    wrong = bench.runner.invoke(app, [*words, "acuracy>=0.01"], env=bench.environment)
    assert (passed.exit_code, missed.exit_code, wrong.exit_code) == (0, 1, 2)
    assert "accuracy" in missed.stderr


@pytest.mark.parametrize("dataset", ["digits", "cancer"])
def test_the_spec_of_init_is_trained(bench: Bench, dataset: str) -> None:
    """The service takes the file as it is, and makes of it what it would make of the dataset and the model alone."""
    written = bench.runner.invoke(app, ["init", dataset, "--output", "-"], env=bench.environment)
    assert written.exit_code == 0, written.output
    spec = yaml.safe_load(written.stdout)
    completed = bench.client.jobs.validate(spec).spec
    alone = bench.client.jobs.validate({"dataset": spec["dataset"], "model": spec["model"]["kind"]}).spec
    assert completed | {"name": "", "early_stop": []} == alone | {"early_stop": []}
    Path("init.yaml").write_text(written.stdout)
    words = ["jobs", "submit", "init.yaml", "--set", "train.epochs=1", "--watch"]
    trained = bench.runner.invoke(app, words, env=bench.environment)
    bench.after()
    assert trained.exit_code == 0, trained.output


def test_completion_has_live_names(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from trainkit_client.cli import completion

    for name, value in bench.environment.items():
        monkeypatch.setenv(name, value)
    assert {"digits", "digits-mlp"} <= set(completion.JOBS("dig"))
    assert "@last" in completion.JOBS("@")
    assert completion.DATASETS("canc") == ["cancer"]
    monkeypatch.setenv("TRAINKIT_URL", "http://127.0.0.1:1")
    assert completion.DATASETS("canc") == []
