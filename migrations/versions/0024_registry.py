"""Register names of datasets and models, with versions and aliases; keep lineage, labels and notes"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

FORBIDDEN = re.compile(r"[\x00-\x1f\x7f/\\@]+")
WITH_VERSION = re.compile(r"(.+):([0-9]+)", re.DOTALL)
ID = re.compile(r"(?:ds|mdl|job|exp)_[0-9a-z]{26}")
AT_ONCE = 200
MODELS = sa.table(
    "models",
    *map(sa.column, ("id", "project_id", "job_id", "name", "version", "created_at", "updated_at")),
    sa.column("manifest", JSON),
    sa.column("lineage", JSON),
)
JOBS = sa.table("jobs", sa.column("id"), sa.column("dataset_id"), sa.column("resolved", JSON))
DATASETS = sa.table("datasets", *map(sa.column, ("id", "project_id", "name", "version", "blob_sha256")))
NAMES = sa.table("registered_names", *map(sa.column, ("project_id", "resource", "name", "last_version")))


def upgrade() -> None:
    op.create_table(
        "registered_names",
        sa.Column("project_id", sa.String(64), sa.ForeignKey("projects.id"), primary_key=True),
        sa.Column("resource", sa.String(10), primary_key=True),
        sa.Column("name", sa.String(200), primary_key=True),
        sa.Column("last_version", sa.Integer(), nullable=False),
    )
    op.create_table(
        "alias_assignments",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("project_id", sa.String(64), sa.ForeignKey("projects.id"), nullable=False),
        sa.Column("resource", sa.String(10), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("alias", sa.String(64), nullable=False),
        sa.Column("target_id", sa.String(40), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.String(200), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_by", sa.String(200), nullable=True),
    )
    named = ["project_id", "resource", "name"]
    op.create_index("alias_assignments_by_name", "alias_assignments", [*named, "id"])
    in_force = {"sqlite_where": sa.text("ended_at IS NULL"), "postgresql_where": sa.text("ended_at IS NULL")}
    op.create_index("aliases_in_force", "alias_assignments", [*named, "alias"], unique=True, **in_force)
    op.create_index("aliases_of_target", "alias_assignments", ["target_id"], **in_force)
    op.add_column("jobs", sa.Column("notes", sa.Text(), nullable=True))
    op.add_column("jobs", sa.Column("reference_names", JSON, nullable=True))
    op.add_column("experiments", sa.Column("reference_names", JSON, nullable=True))
    for column in (
        sa.Column("version", sa.Integer(), nullable=True),
        sa.Column("labels", JSON, nullable=False, server_default="{}"),
        sa.Column("notes", sa.Text(), nullable=True),
        sa.Column("lineage", JSON, nullable=False, server_default="{}"),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=True),
    ):
        op.add_column("models", column)
    _register_datasets()
    _register_models()
    with op.batch_alter_table("models") as batch:
        batch.alter_column("updated_at", existing_type=sa.DateTime(timezone=True), nullable=False)
        batch.create_unique_constraint("models_project_id_name_version_key", ["project_id", "name", "version"])


def _register_datasets() -> None:
    newest = sa.select(DATASETS.c.project_id, sa.literal("dataset"), DATASETS.c.name, sa.func.max(DATASETS.c.version))
    rows = newest.group_by(DATASETS.c.project_id, DATASETS.c.name)
    op.get_bind().execute(sa.insert(NAMES).from_select(["project_id", "resource", "name", "last_version"], rows))


def _register_models() -> None:
    """Give each model the next version of its name, by age, and the lineage that can still be told."""
    connection = op.get_bind()
    versions: Counter[tuple[str, str]] = Counter()
    after = ""
    while True:
        page = sa.select(MODELS, JOBS.c.dataset_id, JOBS.c.resolved)
        page = page.select_from(sa.outerjoin(MODELS, JOBS, MODELS.c.job_id == JOBS.c.id)).where(MODELS.c.id > after)
        rows = connection.execute(page.order_by(MODELS.c.id).limit(AT_ONCE)).all()
        for row in rows:
            name = as_name(row.name)
            changes: dict[str, Any] = {"name": name, "lineage": _lineage(row), "updated_at": MODELS.c.created_at}
            if name:
                versions[row.project_id, name] += 1
                changes["version"] = versions[row.project_id, name]
            connection.execute(sa.update(MODELS).where(MODELS.c.id == row.id).values(changes))
        if len(rows) < AT_ONCE:
            break
        after = rows[-1].id
    for (project_id, name), version in versions.items():
        values = {"project_id": project_id, "resource": "model", "name": name, "last_version": version}
        connection.execute(sa.insert(NAMES).values(values))


def _lineage(row: Any) -> dict[str, Any]:
    manifest = row.manifest if isinstance(row.manifest, dict) else {}
    spec = row.resolved or manifest.get("spec") or {}
    source = spec.get("dataset")
    dataset_id = row.dataset_id or (source.get("id") if isinstance(source, dict) else source)
    dataset = None
    if isinstance(dataset_id, str):
        found = op.get_bind().execute(sa.select(DATASETS).where(DATASETS.c.id == dataset_id)).one_or_none()
        known = (None, None, None) if found is None else (found.name, found.version, found.blob_sha256)
        dataset = dict(zip(("id", "name", "version", "sha256"), (dataset_id, *known), strict=True))
    start = spec.get("start_from") or (spec.get("model") or {}).get("init") or {}
    members = (spec.get("model") or {}).get("members") or ()
    named = [*members, *(start.get(field) for field in ("model", "dataset") if isinstance(start, dict))]
    trained = {name: value for name, value in spec.items() if name not in ("name", "labels", "group")}
    text = json.dumps(trained, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return {
        "job": row.job_id,
        "dataset": dataset,
        "spec_sha256": hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest() if spec else None,
        "parents": [one for one in named if isinstance(one, str) and not one.startswith("job_")],
        "trainkit": (manifest.get("versions") or {}).get("trainkit"),
    }


def as_name(text: str) -> str:
    """Return the nearest text that a reference can name; '' where nothing is left."""
    name = FORBIDDEN.sub("-", text).strip()[:200].strip()
    if (match := WITH_VERSION.fullmatch(name)) is not None:
        name = f"{match[1]}-{match[2]}"
    if ID.fullmatch(name):
        name = name.replace("_", "-", 1)
    return "" if name in (".", "..") else name
