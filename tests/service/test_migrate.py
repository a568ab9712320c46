"""The migrated schema is the one that the code believes in, on both databases."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import MetaData, inspect, text
from sqlalchemy.exc import IntegrityError

from service.database import make_engine
from service.datasets.tables import DatasetVersion
from service.experiments.tables import Experiment, Trial
from service.inference_requests.tables import InferenceRequest
from service.jobs import leases
from service.jobs.repository import delete_job
from service.jobs.tables import Attempt, Decision, Job, JobEvent, label_digest
from service.keys.service import authenticate
from service.leases import Claim
from service.logs import service as logs
from service.logs.chunks import LogLine
from service.logs.tables import LogChunk
from service.metrics import service as metrics
from service.metrics.chunks import MetricRow, columns_of, decode_columns, encode_columns
from service.metrics.tables import MetricChunk
from service.migrate import upgrade
from service.outbox.tables import WebhookDelivery
from service.peer_evaluations.tables import PeerEvaluation, PeerGroup, PeerGroupMember
from service.projects.service import rules_of
from service.projects.tables import Project
from service.recommendations.service import scorecard
from service.recommendations.tables import Recommendation
from service.sessions import session_factory
from service.settings import Settings
from service.tables import Base
from service.uploads.tables import Upload
from service.workers.tables import Housekeeping
from tests.support.old_rows import rows_of_the_eleventh_schema
from trainkit.spec import parse_spec
from trainkit.spec.experiments import parse_experiment

pytestmark = pytest.mark.postgresql

ROOT = Path(__file__).parents[2]
NEWEST = max(path.name for path in (ROOT / "migrations" / "versions").glob("[0-9]*.py")).partition("_")[0]


def test_migrations_make_the_tables_that_the_code_describes(migrated_url: str) -> None:
    engine = make_engine(migrated_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def test_migrating_again_changes_nothing(migrated_url: str) -> None:
    upgrade(migrated_url)
    engine = make_engine(migrated_url)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all() == [NEWEST]
    engine.dispose()


def test_several_migrations_at_once_give_one_schema(database_url: str) -> None:
    environment = {**os.environ, "TRAINKIT_DATABASE_URL": database_url}
    command = [sys.executable, "-m", "service.migrate"]
    several = [
        subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in several:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    engine = make_engine(database_url)
    assert set(Base.metadata.tables) <= set(inspect(engine).get_table_names())
    engine.dispose()


def test_a_failed_migration_leaves_nothing(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import alembic.op

    create_table = alembic.op.create_table

    def break_late(name: str, *columns: object, **options: object) -> object:
        if name == "models":
            raise RuntimeError("the power went out")
        return create_table(name, *columns, **options)

    monkeypatch.setattr(alembic.op, "create_table", break_late)
    with pytest.raises(RuntimeError, match="power"):
        upgrade(database_url)
    engine = make_engine(database_url)
    assert inspect(engine).get_table_names() == []
    monkeypatch.undo()
    upgrade(database_url)
    assert "models" in inspect(engine).get_table_names()
    engine.dispose()


def test_what_the_first_schema_held_is_kept(database_url: str) -> None:
    upgrade(database_url, "0001")
    engine = make_engine(database_url)
    old = MetaData()
    old.reflect(engine)
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    at = {"created_at": now, "updated_at": now}
    counts = dict.fromkeys(("attempts", "interruptions", "priority", "fence"), 0)
    dataset = {"id": "ds_1", "project_id": "p", "name": "d", "version": 1, "state": "ready", "facts": {"samples": 3}}
    job = {
        "id": "job_1",
        "project_id": "p",
        "labels": {},
        "name": "j",
        "spec": {"a": 1},
        "dataset_id": "ds_1",
        "queue": "train",
    }
    numbers = {"max_attempts": 3, "next_seq": 1, "next_event_seq": 1, "next_decision_seq": 1}
    metrics: dict[str, object] = {"metrics_last": {}, "metrics_best": {}}
    with engine.begin() as connection:
        tables = old.tables
        connection.execute(tables["projects"].insert(), {"id": "p", "name": "p", "created_at": now})
        blob = {"sha256": "a" * 64, "bytes": 9, "storage_key": "blobs/aa/x", "created_at": now}
        connection.execute(tables["blobs"].insert(), blob)
        stored = {"blob_sha256": "a" * 64, "bytes": 9, "interruptions": 0, "fence": 2}
        connection.execute(tables["datasets"].insert(), {**dataset, **stored, **at})
        connection.execute(tables["jobs"].insert(), {**job, **counts, **numbers, **metrics, **at, "state": "queued"})
    engine.dispose()
    upgrade(database_url)
    engine = make_engine(database_url)
    with session_factory(engine)() as session:
        kept = session.get_one(Job, "job_1")
        owner = session.get_one(DatasetVersion, kept.dataset_id)
        assert (owner.blob_sha256, owner.facts, owner.fence, owner.created_at) == ("a" * 64, {"samples": 3}, 2, now)
        assert (owner.source_uri, kept.spec) == (None, {"a": 1})
    keys = inspect(engine).get_foreign_keys("jobs")
    assert "datasets" in {key["referred_table"] for key in keys}
    with pytest.raises(IntegrityError), engine.begin() as connection:
        connection.execute(text("DELETE FROM datasets"))
    engine.dispose()


def test_jobs_of_the_third_schema_get_an_empty_log_and_projects_the_service_s_rules(database_url: str) -> None:
    upgrade(database_url, "0003")
    engine = make_engine(database_url)
    old = MetaData()
    old.reflect(engine)
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    at = {"created_at": now, "updated_at": now}
    counts = dict.fromkeys(("attempts", "interruptions", "priority"), 0)
    numbers = {"max_attempts": 3, "next_seq": 8, "next_event_seq": 4, "next_decision_seq": 1, "fence": 2}
    dataset = {"id": "ds_1", "project_id": "p", "name": "d", "version": 1, "state": "ready", "fence": 1}
    job = {"id": "job_1", "project_id": "p", "name": "j", "spec": {}, "labels": {"a": "b"}, "dataset_id": "ds_1"}
    parent: dict[str, object] = {"parent": {"job": "job_0"}, "metrics_last": {}, "metrics_best": {}}
    event = {"job_id": "job_1", "seq": 3, "at": now, "kind": "state", "to_state": "running", "actor": "w"}
    chunk = {"job_id": "job_1", "first_seq": 1, "last_seq": 7, "fence": 2, "body": b"x"}
    attempt = {"job_id": "job_1", "fence": 2, "worker": "w", "started_at": now, "resumed_from_step": 5}
    with engine.begin() as connection:
        tables = old.tables
        connection.execute(tables["projects"].insert(), {"id": "p", "name": "p", "created_at": now})
        connection.execute(tables["datasets"].insert(), {**dataset, "interruptions": 0, "bytes": 9, **at})
        state = {"state": "running", "queue": "train", "lease_owner": "w"}
        connection.execute(tables["jobs"].insert(), {**job, **counts, **numbers, **parent, **at, **state})
        connection.execute(tables["job_events"].insert(), event)
        connection.execute(tables["metric_chunks"].insert(), chunk)
        connection.execute(tables["attempts"].insert(), attempt)
    engine.dispose()
    upgrade(database_url)
    engine = make_engine(database_url)
    sessions = session_factory(engine)
    with sessions() as session:
        kept = session.get_one(Job, "job_1")
        assert (kept.next_log_seq, kept.purged, kept.fence, kept.next_seq) == (1, None, 2, 8)
        assert (kept.parent, kept.labels, kept.created_at) == ({"job": "job_0"}, {"a": "b"}, now)
        assert session.get_one(Project, "p").settings is None
        tried = session.get_one(Attempt, ("job_1", 2))
        assert (tried.resumed_from_step, tried.resume) == (5, None)
        assert [event.seq for event in session.query(JobEvent)] == [3]
        assert [chunk.last_seq for chunk in session.query(MetricChunk)] == [7]
    with sessions.begin() as session:
        assert logs.append(session, Claim("job_1", 2), [LogLine(1.0, "info", "training", "first")]) == (1, 1)
    with sessions.begin() as session:
        session.delete(session.get_one(Job, "job_1"))
    with sessions() as session:
        assert session.query(LogChunk).all() == []
    engine.dispose()


def test_jobs_of_the_fourth_schema_belong_to_no_experiment_and_go_on_deciding(database_url: str) -> None:
    upgrade(database_url, "0004")
    engine = make_engine(database_url)
    old = MetaData()
    old.reflect(engine)
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    at = {"created_at": now, "updated_at": now}
    counts = dict.fromkeys(("attempts", "interruptions", "priority"), 0)
    numbers = {"max_attempts": 3, "next_seq": 8, "next_event_seq": 4, "next_decision_seq": 3, "fence": 2}
    dataset = {"id": "ds_1", "project_id": "p", "name": "d", "version": 1, "state": "ready", "fence": 1}
    job = {"id": "job_1", "project_id": "p", "name": "j", "spec": {}, "labels": {"a": "b"}, "dataset_id": "ds_1"}
    more: dict[str, object] = {"metrics_last": {}, "metrics_best": {}, "state": "running", "queue": "train"}
    taken = {"job_id": "job_1", "at": now, "fence": 2, "step": 1, "epoch": 1, "rule": {"kind": "patience"}}
    with engine.begin() as connection:
        tables = old.tables
        connection.execute(tables["projects"].insert(), {"id": "p", "name": "p", "created_at": now})
        connection.execute(tables["datasets"].insert(), {**dataset, "interruptions": 0, "bytes": 9, **at})
        connection.execute(tables["jobs"].insert(), {**job, **counts, **numbers, **more, **at, "next_log_seq": 5})
        for seq in (1, 2):
            row = {**taken, "seq": seq, "inputs": {"x": seq}, "action": "continue"}
            connection.execute(tables["decisions"].insert(), row)
    engine.dispose()
    upgrade(database_url)
    engine = make_engine(database_url)
    sessions = session_factory(engine)
    with sessions.begin() as session:
        kept = session.get_one(Job, "job_1")
        assert (kept.group_name, kept.peer_decisions, kept.next_decision_seq, kept.labels) == (None, 0, 3, {"a": "b"})
        decision = {"rule": {"kind": "patience"}, "step": 2, "epoch": 2, "inputs": {}, "action": "continue"}
        claim = Claim("job_1", 2)
        metrics.append(
            session, claim, [MetricRow("val", "loss", 2, 2, 1.0, 0.0), MetricRow("train", "seconds", 2, 2, 1.0, 0.0)]
        )
        metrics.append_decisions(session, claim, [decision])
    with sessions() as session:
        assert [(d.seq, d.inputs) for d in session.query(Decision)] == [(1, {"x": 1}), (2, {"x": 2}), (3, {})]
        assert session.query(PeerEvaluation).all() == []
    engine.dispose()


def test_jobs_of_the_seventh_schema_were_prescribed_by_nobody_and_can_be_deleted(database_url: str) -> None:
    upgrade(database_url, "0007")
    engine = make_engine(database_url)
    old = MetaData()
    old.reflect(engine)
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    at = {"created_at": now, "updated_at": now}
    counts = dict.fromkeys(("attempts", "interruptions", "priority"), 0)
    numbers = {"max_attempts": 3, "next_seq": 1, "next_event_seq": 1, "next_decision_seq": 1, "fence": 2}
    dataset = {"id": "ds_1", "project_id": "p", "name": "d", "version": 1, "state": "ready", "fence": 1}
    job = {"id": "job_1", "project_id": "p", "name": "j", "spec": {}, "labels": {}, "dataset_id": "ds_1"}
    more: dict[str, object] = {"metrics_last": {}, "metrics_best": {}, "state": "succeeded", "queue": "train"}
    with engine.begin() as connection:
        connection.execute(old.tables["projects"].insert(), {"id": "p", "name": "p", "created_at": now})
        connection.execute(old.tables["datasets"].insert(), {**dataset, "interruptions": 0, "bytes": 9, **at})
        connection.execute(old.tables["jobs"].insert(), {**job, **counts, **numbers, **more, **at})
    engine.dispose()
    upgrade(database_url)
    engine = make_engine(database_url)
    sessions = session_factory(engine)
    with sessions.begin() as session:
        kept = session.get_one(Job, "job_1")
        assert scorecard(session, "p")["all"]["recommendations"] == 0
        delete_job(session, kept)
    with sessions() as session:
        assert session.get(Job, "job_1") is None
    engine.dispose()


def test_jobs_of_the_tenth_schema_wait_for_no_other_job_and_their_specs_stay_valid(database_url: str) -> None:
    upgrade(database_url, "0010")
    engine = make_engine(database_url)
    old = MetaData()
    old.reflect(engine)
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    at = {"created_at": now, "updated_at": now}
    counts = dict.fromkeys(("attempts", "interruptions", "priority"), 0)
    numbers = {"max_attempts": 3, "next_seq": 1, "next_event_seq": 1, "next_decision_seq": 1}
    dataset = {"id": "ds_1", "project_id": "p", "name": "d", "version": 1, "state": "ready", "fence": 1}
    spec = {"dataset": "ds_1", "model": {"kind": "mlp"}, "resources": {"device": "cpu", "gpus": 1}}
    kept_spec = {**spec, "resources": {"device": "cpu"}, "preprocess": []}
    job = {"project_id": "p", "name": "j", "labels": {}, "dataset_id": "ds_1", "queue": "train", **counts, **numbers}
    more: dict[str, object] = {"metrics_last": {}, "metrics_best": {}, "resolved": spec, "spec": spec}
    failed = {"code": "does_not_fit", "evidence": {"next_spec": {"spec": spec, "patch": {"resources": {"gpus": 0}}}}}
    attempt = {"job_id": "job_1", "fence": 2, "worker": "w", "started_at": now, "error": failed}
    plan = {"kind": "kfold", "batch": "never", "folds": 2, "spec": spec, "variants": {"b": {"resources": {"gpus": 0}}}}
    experiment = {"id": "exp_1", "project_id": "p", "key_id": "k", "name": "", "kind": "kfold", "labels": {}}
    trial = {"experiment_id": "exp_1", "number": 0, "job_id": "job_1", "params": {}, "document": spec}
    with engine.begin() as connection:
        tables = old.tables
        connection.execute(tables["projects"].insert(), {"id": "p", "name": "p", "created_at": now})
        connection.execute(tables["datasets"].insert(), {**dataset, "interruptions": 0, "bytes": 9, **at})
        for name, leader, fence in (("job_1", None, 2), ("job_2", "job_1", 0)):
            row = {**job, **more, **at, "id": name, "batch_leader": leader, "fence": fence, "state": "queued"}
            connection.execute(tables["jobs"].insert(), row)
        connection.execute(tables["attempts"].insert(), attempt)
        state = {"plan": plan, "dataset_id": "ds_1", "state": "running", "more": True, **at}
        connection.execute(tables["experiments"].insert(), {**experiment, **state})
        connection.execute(tables["experiment_trials"].insert(), {**trial, "created_at": now})
    engine.dispose()
    upgrade(database_url)
    engine = make_engine(database_url)
    sessions = session_factory(engine)
    with sessions() as session:
        for name in ("job_1", "job_2"):
            kept = session.get_one(Job, name)
            assert (kept.spec, kept.resolved, kept.state, kept.error) == (kept_spec, kept_spec, "queued", None)
        assert parse_spec(kept_spec) == parse_spec(session.get_one(Job, "job_2").spec)
        offered = {"next_spec": {"spec": kept_spec, "patch": {"resources": {}}}}
        assert session.get_one(Attempt, ("job_1", 2)).error == {"code": "does_not_fit", "evidence": offered}
        moved = session.get_one(Experiment, "exp_1").plan
        assert list(moved) == ["kind", "folds", "spec", "variants"], "in their order"
        assert parse_experiment(moved).spec == kept_spec
        assert session.get_one(Trial, ("exp_1", 0)).spec == kept_spec
    with sessions.begin() as session:
        first, second = (leases.claim(session, "train", "w", 30.0) for _ in range(2))
        assert {claimed.job_id for claimed in (first, second) if claimed} == {"job_1", "job_2"}
    engine.dispose()


def test_rows_of_the_eleventh_schema_keep_their_values_under_the_new_names(database_url: str) -> None:
    upgrade(database_url, "0011")
    engine = make_engine(database_url)
    old = MetaData()
    old.reflect(engine)
    rows = rows_of_the_eleventh_schema()
    with engine.begin() as connection:
        for name, values in rows.items():
            connection.execute(old.tables[name].insert(), values)
    engine.dispose()
    upgrade(database_url)
    engine = make_engine(database_url)
    with session_factory(engine)() as session:
        kept = session.get_one(Job, "job_1")
        assert (kept.group_name, kept.runtime, kept.requested_action) == ("g", {"threads": 2}, {"action": "stop"})
        assert (kept.purged, kept.compacted_seq, kept.peer_decisions) == ({"logs": {}}, 7, 3)
        assert [event.seq for event in session.query(JobEvent)] == [1]
        data = session.get_one(DatasetVersion, "ds_1")
        assert data.read_options == {"delimiter": ";"}
        sent = session.get_one(Upload, "up_1")
        assert (sent.metadata_header, sent.read_options) == ("name bm8=", {"header": True})
        assert session.query(LogChunk).one().max_level == 3
        answered = session.get_one(InferenceRequest, "q_1")
        assert (answered.request, answered.response, answered.response_type) == (b"{}", b"[1]", "u")
        many = session.get_one(Experiment, "exp_1")
        assert (many.has_pending, many.requested_action) == (False, "cancel")
        first, second = (session.get_one(Trial, ("exp_1", number)) for number in (0, 1))
        assert (first.spec, first.rationale, second.outcome) == ({"a": 1}, {"b": 2}, None)
        assert first.outcome == {"state": "succeeded", "metrics": {"val_loss": 0.5}}
        assert session.get_one(Recommendation, "job_1").ruleset_version == 3
        assert session.get_one(PeerGroup, ("p", "g")).version == 6
        assert session.get_one(PeerGroupMember, ("p", "g", "job_1"))
        noted = session.get_one(PeerEvaluation, ("job_1", 8))
        assert (noted.valid_from, noted.superseded_at, noted.running_stats) == (5, 6, {"x": [1]})
        message = session.get_one(WebhookDelivery, "msg_1")
        assert (message.attempts, message.round_attempts) == (5, 2)
        assert session.get_one(Housekeeping, "housekeeping").owner == "w"
    engine.dispose()


def test_recommendations_in_the_trials_of_the_twelfth_schema_get_their_new_names(database_url: str) -> None:
    upgrade(database_url, "0012")
    engine = make_engine(database_url)
    old = MetaData()
    old.reflect(engine)
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    offer = {"patch": {"train": {"epochs": 4}}, "why": "w", "expected": {}, "code": "overfitting"}
    experiment = {"id": "exp_1", "project_id": "p", "key_id": "k", "name": "", "kind": "autopilot", "labels": {}}
    state = {
        "plan": {},
        "dataset_id": "ds_1",
        "state": "running",
        "has_pending": True,
        "created_at": now,
        "updated_at": now,
    }
    trial = {"experiment_id": "exp_1", "params": {}, "spec": {}, "created_at": now}
    outcome = {"state": "succeeded", "diagnosis": {"final": True, "verdicts": [], "next_specs": [offer]}}
    with engine.begin() as connection:
        connection.execute(old.tables["projects"].insert(), {"id": "p", "name": "p", "created_at": now})
        connection.execute(old.tables["experiments"].insert(), {**experiment, **state})
        for number, kind in enumerate(("start", "remedy", "move")):
            row = {
                **trial,
                "number": number,
                "rationale": {"kind": kind, "patch": {}, "code": "smoothed"},
                "outcome": outcome,
            }
            connection.execute(old.tables["experiment_trials"].insert(), row)
        connection.execute(old.tables["experiment_trials"].insert(), {**trial, "number": 3})
    engine.dispose()
    upgrade(database_url)
    engine = make_engine(database_url)
    with session_factory(engine)() as session:
        trials = [session.get_one(Trial, ("exp_1", number)) for number in range(4)]
        assert [one.rationale and one.rationale["kind"] for one in trials] == [
            "start",
            "recommendation",
            "heuristic",
            None,
        ]
        assert [one.rationale["code"] for one in trials if one.rationale] == ["smoothed", "smoothed", "label_smoothing"]
        renamed = {"final": True, "verdicts": [], "recommendations": [offer]}
        assert [one.outcome and one.outcome["diagnosis"] for one in trials] == [renamed] * 3 + [None]
    engine.dispose()


def test_migration_0014_renames_spec_fields_in_stored_documents(database_url: str) -> None:
    upgrade(database_url, "0013")
    engine = make_engine(database_url)
    old = MetaData()
    old.reflect(engine)
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    at = {"created_at": now, "updated_at": now}
    counts = dict.fromkeys(("attempts", "interruptions", "priority"), 0)
    numbers = {"max_attempts": 3, "next_seq": 2, "next_event_seq": 1, "next_decision_seq": 1}
    dataset = {"id": "ds_1", "project_id": "p", "name": "d", "version": 1, "state": "ready", "fence": 1}
    train = {"accumulate": 2, "probes": ["first_batch"], "record": "none", "epochs": 3}
    spec = {"model": {"kind": "mlp"}, "dataset": "ds_1", "split": {"copies": "drop"}, "train": train, "experiment": "e"}
    kept_train = {"gradient_accumulation_steps": 2, "sanity_checks": ["first_batch"], "log_stats": "none", "epochs": 3}
    kept_spec = {**spec, "split": {"duplicates": "drop"}, "train": kept_train, "group": "e"}
    del kept_spec["experiment"]
    job = {"project_id": "p", "name": "j", "labels": {}, "dataset_id": "ds_1", "queue": "train", **counts, **numbers}
    last = {"probe_small_model_loss": {"step": 1, "value": 0.5}, "train_loss": {"step": 1, "value": 0.4}}
    more: dict[str, object] = {"metrics_last": last, "metrics_best": {}, "resolved": spec, "spec": spec, "fence": 2}
    failed = {"code": "does_not_fit", "evidence": {"next_spec": {"patch": {"train": {"accumulate": 4}}}}}
    attempt = {"job_id": "job_1", "fence": 2, "worker": "w", "started_at": now, "error": failed}
    body = encode_columns(
        columns_of(
            [MetricRow("probe", "first_batch_loss", 10, 1, 0.1, 5.0), MetricRow("train", "loss", 1, 1, 2.0, 6.0)]
        )
    )
    chunk = {"job_id": "job_1", "first_seq": 1, "last_seq": 2, "fence": 2, "body": body}
    plan = {"kind": "grid", "spec": {**spec, "name": "x"}, "space": {"/train/accumulate": [1, 2]}}
    del plan["spec"]["experiment"]
    taken = {"kind": "ensemble", "experiment": "exp_1"}
    experiment = {
        "project_id": "p",
        "key_id": "k",
        "name": "",
        "labels": {},
        "dataset_id": "ds_1",
        "has_pending": True,
        **at,
    }
    trial = {"experiment_id": "exp_1", "number": 0, "job_id": "job_1", "spec": spec, "created_at": now}
    expected = {"metric": "probe_small_model_loss", "direction": "down"}
    measured: dict[str, object] = {
        "expected": expected,
        "compared": {},
        "code": "underfitting_model_bias",
        "ruleset_version": 1,
    }
    recommendation = {"job_id": "job_1", "project_id": "p", "source_job": "job_0", "created_at": now, **measured}
    with engine.begin() as connection:
        tables = old.tables
        connection.execute(tables["projects"].insert(), {"id": "p", "name": "p", "created_at": now})
        connection.execute(tables["datasets"].insert(), {**dataset, "interruptions": 0, "bytes": 9, **at})
        row = {**job, **more, **at, "id": "job_1", "state": "succeeded", "group_name": "e"}
        connection.execute(tables["jobs"].insert(), row)
        connection.execute(tables["attempts"].insert(), attempt)
        connection.execute(tables["metric_chunks"].insert(), chunk)
        for name, one in (("exp_1", plan), ("exp_2", taken)):
            row = {**experiment, "id": name, "kind": one["kind"], "plan": one, "state": "succeeded"}
            connection.execute(tables["experiments"].insert(), row)
        params = {"/train/accumulate": 2}
        connection.execute(tables["experiment_trials"].insert(), {**trial, "params": params})
        patch = {"train": {"probes": ["small_model"]}, "split": {"copies": "drop"}}
        connection.execute(tables["recommendations"].insert(), {**recommendation, "patch": patch})
    engine.dispose()
    upgrade(database_url, "0014")
    engine = make_engine(database_url)
    new = MetaData()
    new.reflect(engine)
    with engine.connect() as connection:

        def rows(name: str) -> list[dict[str, object]]:
            return [dict(row) for row in connection.execute(new.tables[name].select()).mappings()]

        (kept,) = rows("jobs")
        assert (kept["spec"], kept["resolved"], kept["group_name"]) == (kept_spec, kept_spec, "e")
        assert set(kept["metrics_last"]) == {"sanity_check_small_model_loss", "train_loss"}
        assert parse_spec(kept["spec"]).train.gradient_accumulation_steps == 2
        (tried,) = rows("attempts")
        patch = {"train": {"gradient_accumulation_steps": 4}}
        assert tried["error"] == {"code": "does_not_fit", "evidence": {"next_spec": {"patch": patch}}}
        (stored,) = rows("metric_chunks")
        series = decode_columns(stored["body"]).rows(np.arange(2))
        assert [row[:5] for row in series] == [
            ("sanity_check", "first_batch_loss", 10, 1, 0.1),
            ("train", "loss", 1, 1, 2.0),
        ]
        swept, ensemble = (one["plan"] for one in sorted(rows("experiments"), key=lambda one: str(one["id"])))
        assert (list(swept), list(swept["space"])) == (
            ["kind", "spec", "space"],
            ["/train/gradient_accumulation_steps"],
        )
        assert list(swept["spec"]) == ["model", "dataset", "split", "train", "name"], "in their order"
        assert parse_experiment(swept).spec["train"] == kept_train
        assert ensemble == taken
        (held,) = rows("experiment_trials")
        assert (held["spec"], held["params"]) == (kept_spec, {"/train/gradient_accumulation_steps": 2})
        (offered,) = rows("recommendations")
        assert offered["patch"] == {"train": {"sanity_checks": ["small_model"]}, "split": {"duplicates": "drop"}}
        assert offered["expected"] == {"metric": "sanity_check_small_model_loss", "direction": "down"}
    engine.dispose()


def test_migration_0016_renames_the_kind_of_the_ema_momentum(database_url: str) -> None:
    upgrade(database_url, "0015")
    engine = make_engine(database_url)
    old = MetaData()
    old.reflect(engine)
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    at = {"created_at": now, "updated_at": now}
    counts = dict.fromkeys(("attempts", "interruptions", "priority"), 0)
    numbers = {"max_attempts": 3, "next_seq": 1, "next_event_seq": 1, "next_decision_seq": 1, "fence": 1}
    dataset = {"id": "ds_1", "project_id": "p", "name": "d", "version": 1, "state": "ready", "fence": 1}
    spec = {"name": "momentum", "model": {"kind": "mlp"}, "dataset": "ds_1", "optimizer": {"kind": "momentum", "lr": 1}}
    kept = {**spec, "optimizer": {"kind": "ema_momentum", "lr": 1}, "preprocess": []}
    job = {"project_id": "p", "name": "momentum", "labels": {}, "dataset_id": "ds_1", "queue": "train", **counts}
    job |= {**numbers, "metrics_last": {}, "metrics_best": {}, "spec": spec, "resolved": spec, "state": "succeeded"}
    plan = {"kind": "grid", "spec": spec, "space": {"/optimizer/kind": ["momentum", "sgd"]}}
    experiment = {"id": "exp_1", "project_id": "p", "key_id": "k", "name": "", "labels": {}, "dataset_id": "ds_1"}
    experiment |= {"has_pending": False, "kind": "grid", "plan": plan, "state": "succeeded", **at}
    trial = {"experiment_id": "exp_1", "number": 0, "job_id": "job_1", "spec": spec, "created_at": now}
    with engine.begin() as connection:
        tables = old.tables
        connection.execute(tables["projects"].insert(), {"id": "p", "name": "p", "created_at": now})
        connection.execute(tables["datasets"].insert(), {**dataset, "interruptions": 0, "bytes": 9, **at})
        connection.execute(tables["jobs"].insert(), {**job, **at, "id": "job_1"})
        connection.execute(tables["experiments"].insert(), experiment)
        connection.execute(tables["experiment_trials"].insert(), {**trial, "params": {"/optimizer/kind": "momentum"}})
    engine.dispose()
    upgrade(database_url, "0016")
    engine = make_engine(database_url)
    new = MetaData()
    new.reflect(engine)
    with engine.connect() as connection:
        (row,) = connection.execute(new.tables["jobs"].select()).mappings()
        assert (row["spec"], row["resolved"], row["name"]) == (kept, kept, "momentum")
        assert parse_spec(row["spec"]).optimizer.lr == 1
        (stored,) = connection.execute(new.tables["experiments"].select()).mappings()
        assert stored["plan"] == {**plan, "spec": kept, "space": {"/optimizer/kind": ["ema_momentum", "sgd"]}}
        (tried,) = connection.execute(new.tables["experiment_trials"].select()).mappings()
        assert (tried["spec"], tried["params"]) == (kept, {"/optimizer/kind": "ema_momentum"})
    engine.dispose()


def test_the_quota_of_a_project_keeps_its_value_under_its_new_name(database_url: str) -> None:
    upgrade(database_url, "0022")
    engine = make_engine(database_url)
    stored = {"prj_1": {"quota_bytes": 5, "logs_days": 7}, "prj_2": {"quota_bytes": 0}, "prj_3": {"jobs_days": 1}}
    with engine.begin() as connection:
        old = MetaData()
        old.reflect(connection, only=["projects"])
        now = datetime.now(UTC)
        for identifier, settings in {**stored, "prj_4": None}.items():
            row = {"id": identifier, "name": identifier, "created_at": now, "settings": settings}
            connection.execute(old.tables["projects"].insert().values(row))
    upgrade(database_url)
    with session_factory(engine)() as session:
        found = {project.id: (project.settings, project.limits) for project in session.query(Project)}
        rules = rules_of(Settings.from_env({}), found["prj_1"][0])
    expected = {"prj_1": {"max_storage_bytes": 5, "logs_days": 7}, "prj_2": {"max_storage_bytes": 0}}
    assert found == {name: (value, None) for name, value in {**stored, **expected, "prj_4": None}.items()}
    assert (rules.max_storage_bytes, rules.logs_days) == (5, 7)
    engine.dispose()


def test_migration_0018_finds_jobs_by_label_and_retries_by_their_parent(database_url: str) -> None:
    upgrade(database_url, "0017")
    engine = make_engine(database_url)
    old = MetaData()
    old.reflect(engine)
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    at = {"created_at": now, "updated_at": now}
    counts = dict.fromkeys(("attempts", "interruptions", "priority"), 0)
    numbers = {"max_attempts": 3, "next_seq": 1, "next_event_seq": 1, "next_decision_seq": 1, "fence": 1}
    dataset = {"id": "ds_1", "project_id": "p", "name": "d", "version": 1, "state": "ready", "fence": 1}
    job = {"project_id": "p", "name": "j", "dataset_id": "ds_1", "queue": "train", "spec": {}, "state": "queued"}
    job |= {**counts, **numbers, "metrics_last": {}, "metrics_best": {}, "notified_at": now, **at}
    retry = {"job": "job_1", "relation": "retry", "step": None}
    fork = {"job": "job_1", "relation": "fork", "step": 3}
    with engine.begin() as connection:
        tables = old.tables
        connection.execute(tables["projects"].insert(), {"id": "p", "name": "p", "created_at": now})
        connection.execute(tables["datasets"].insert(), {**dataset, "interruptions": 0, "bytes": 9, **at})
        labels = {"team": "vision", "long": "x" * 10_000}
        connection.execute(tables["jobs"].insert(), {**job, "id": "job_1", "labels": labels})
        connection.execute(tables["jobs"].insert(), {**job, "id": "job_2", "labels": {}, "parent": retry})
        connection.execute(tables["jobs"].insert(), {**job, "id": "job_3", "labels": labels, "parent": fork})
    engine.dispose()
    upgrade(database_url, "0018")
    engine = make_engine(database_url)
    new = MetaData()
    new.reflect(engine)
    with engine.connect() as connection:
        jobs = list(connection.execute(new.tables["jobs"].select().order_by(new.tables["jobs"].c.id)).mappings())
        found = set(connection.execute(new.tables["job_labels"].select()).tuples())
    assert "notified_at" not in jobs[0]
    assert [row["retry_of"] for row in jobs] == [None, "job_1", None]
    digests = [label_digest(key, value) for key, value in labels.items()]
    assert found == {("p", digest, job) for digest in digests for job in ("job_1", "job_3")}
    engine.dispose()


def test_keys_with_scopes_get_the_role_that_includes_them(database_url: str) -> None:
    upgrade(database_url, "0021")
    engine = make_engine(database_url)
    old = MetaData()
    old.reflect(engine)
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    secret = "s" * 40
    scopes = {
        "admin000": ["read", "write", "admin"],
        "first000": ["read", "write", "admin", "operator"],
        "writer00": ["write"],
        "reader00": ["read"],
        "operator": ["operator"],
    }
    experiment = {"id": "exp_1", "project_id": "p", "key_id": "admin000", "name": "", "kind": "grid", "labels": {}}
    with engine.begin() as connection:
        connection.execute(old.tables["projects"].insert(), {"id": "p", "name": "p", "created_at": now})
        for identifier, held in scopes.items():
            row = {"id": identifier, "project_id": "p", "name": "k", "scopes": held, "created_at": now}
            digest = hashlib.sha256(secret.encode()).hexdigest()
            connection.execute(old.tables["api_keys"].insert(), {**row, "secret_hash": digest})
        more: dict[str, object] = {"plan": {}, "dataset_id": "ds_1", "state": "stopped", "has_pending": False}
        times = {"created_at": now, "updated_at": now}
        connection.execute(old.tables["experiments"].insert(), {**experiment, **more, **times})
    engine.dispose()
    upgrade(database_url)
    engine = make_engine(database_url)
    with session_factory(engine)() as session:
        identities = {one: authenticate(session, f"tk_{one}_{secret}") for one in scopes}
        principals = {one: identity.alone() for one, identity in identities.items() if identity is not None}
        roles = {one: (who.project_id, who.role, who.operator) for one, who in principals.items()}
        assert roles == {
            "admin000": ("p", "admin", False),
            "first000": ("p", "admin", True),
            "writer00": ("p", "developer", False),
            "reader00": ("p", "viewer", False),
            "operator": ("", None, True),
        }
        assert session.get_one(Experiment, "exp_1").actor == "key:admin000"
        assert session.get_one(Project, "p").archived_at is None
    engine.dispose()


def test_migration_0028_keeps_the_best_metrics_where_lists_find_them(database_url: str) -> None:
    upgrade(database_url, "0024")
    engine = make_engine(database_url)
    old = MetaData()
    old.reflect(engine)
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    at = {"created_at": now, "updated_at": now}
    dataset = {"id": "ds_1", "project_id": "p", "name": "d", "version": 1, "state": "ready", "fence": 1}
    counts = dict.fromkeys(("attempts", "interruptions", "priority"), 0)
    numbers = {"max_attempts": 3, "next_seq": 1, "next_event_seq": 1, "next_decision_seq": 1, "fence": 1}
    job = {"project_id": "p", "name": "j", "dataset_id": "ds_1", "queue": "train", "spec": {}, "state": "queued"}
    job |= {**counts, **numbers, "labels": {}, "metrics_last": {}, **at}
    best = {"job_1": {"val_loss": 0.1, "val_accuracy": 1}, "job_2": {}, "job_3": {"val_loss": 1e-300, "odd": None}}
    with engine.begin() as connection:
        connection.execute(old.tables["projects"].insert(), {"id": "p", "name": "p", "created_at": now})
        connection.execute(old.tables["datasets"].insert(), {**dataset, "interruptions": 0, "bytes": 9, **at})
        for name, metrics_best in best.items():
            connection.execute(old.tables["jobs"].insert(), {**job, "id": name, "metrics_best": metrics_best})
    engine.dispose()
    upgrade(database_url)
    engine = make_engine(database_url)
    new = MetaData()
    new.reflect(engine)
    with engine.connect() as connection:
        found = {
            (row.job_id, row.name, row.project_id, row.value)
            for row in connection.execute(new.tables["job_best_metrics"].select())
        }
    assert found == {
        ("job_1", "val_loss", "p", 0.1),
        ("job_1", "val_accuracy", "p", 1.0),
        ("job_3", "val_loss", "p", 1e-300),
    }
    engine.dispose()


def test_migration_0031_counts_what_jobs_hold_already(database_url: str) -> None:
    upgrade(database_url, "0030")
    engine = make_engine(database_url)
    old = MetaData()
    old.reflect(engine)
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    at = {"created_at": now, "updated_at": now}
    dataset = {"id": "ds_1", "project_id": "p", "name": "d", "version": 1, "state": "ready", "fence": 1}
    counts = dict.fromkeys(("attempts", "interruptions", "priority"), 0)
    numbers = {"max_attempts": 3, "next_seq": 1, "next_event_seq": 1, "next_decision_seq": 1, "fence": 1}
    job = {"project_id": "p", "name": "j", "dataset_id": "ds_1", "queue": "train", "spec": {}, "state": "succeeded"}
    job |= {**counts, **numbers, "labels": {}, "metrics_last": {}, "metrics_best": {}, "finished_at": now, **at}
    chunks = [{"job_id": "job_1", "first_seq": n, "last_seq": n, "fence": 1, "body": b"x" * n} for n in (1, 20)]
    decision = {"job_id": "job_1", "seq": 1, "at": now, "fence": 1, "step": 1, "epoch": 1, "action": "continue"}
    event = {"job_id": "job_1", "seq": 1, "at": now, "kind": "edited", "actor": "key:x"}
    with engine.begin() as connection:
        connection.execute(old.tables["projects"].insert(), {"id": "p", "name": "p", "created_at": now})
        connection.execute(old.tables["datasets"].insert(), {**dataset, "interruptions": 0, "bytes": 9, **at})
        connection.execute(old.tables["jobs"].insert(), {**job, "id": "job_1", "evaluation": {"a": 1}})
        connection.execute(old.tables["jobs"].insert(), {**job, "id": "job_2"})
        connection.execute(old.tables["metric_chunks"].insert(), chunks)
        connection.execute(old.tables["log_chunks"].insert(), [{**one, "max_level": 1} for one in chunks[1:]])
        connection.execute(old.tables["decisions"].insert(), {**decision, "rule": {"r": 1}, "inputs": {"i": 2}})
        connection.execute(old.tables["job_events"].insert(), {**event, "data": {"before": {}}})
        connection.execute(old.tables["job_events"].insert(), {**event, "seq": 2})
    engine.dispose()
    upgrade(database_url)
    engine = make_engine(database_url)
    with session_factory(engine)() as session:
        found = {job.id: (job.metric_bytes, job.log_bytes, job.record_bytes) for job in session.query(Job)}
    # spec `{}`, evaluation, rule, inputs and an event; with a space after each colon
    assert found == {"job_1": (21, 20, 2 + 8 + 8 + 8 + 14), "job_2": (0, 0, 2)}
    engine.dispose()
