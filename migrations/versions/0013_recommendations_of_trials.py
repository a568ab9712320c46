"""Name recommendations in the trials of an autopilot: `next_specs`, `remedy` and `move` become the field's words"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

KINDS = {"remedy": "recommendation", "move": "heuristic"}
"""Kind of an autopilot's step: before -> now."""
CODES = {
    "scaled": "z_score",
    "both_ways": "bidirectional",
    "places_kept": "flatten_head",
    "longer": "more_epochs_with_cosine",
    "longer_still": "more_epochs",
    "annealed": "cosine_schedule",
    "faster": "higher_learning_rate",
    "slower": "lower_learning_rate",
    "normalised": "batch_norm",
    "moved_pictures": "shift_and_rotate",
    "mixed": "mixup",
    "dropped": "dropout",
    "decayed": "weight_decay",
    "smoothed": "label_smoothing",
}
"""Name of a heuristic: before -> now."""


def upgrade() -> None:
    connection = op.get_bind()
    documents = (sa.column("outcome", JSON), sa.column("rationale", JSON))
    trials = sa.table("experiment_trials", sa.column("experiment_id"), sa.column("number"), *documents)
    keys = (trials.c.experiment_id, trials.c.number)
    is_autopilot = sa.or_(trials.c.rationale.is_not(None), sa.cast(trials.c.outcome, sa.Text).like('%"next_specs"%'))
    for experiment, number in connection.execute(sa.select(*keys).where(is_autopilot)).all():
        row = sa.and_(trials.c.experiment_id == experiment, trials.c.number == number)
        outcome, rationale = connection.execute(sa.select(trials.c.outcome, trials.c.rationale).where(row)).one()
        diagnosis = (outcome or {}).get("diagnosis")
        if diagnosis and "next_specs" in diagnosis:
            diagnosis["recommendations"] = diagnosis.pop("next_specs")
        if rationale and rationale.get("kind") == "move":
            rationale["code"] = CODES.get(rationale["code"], rationale["code"])
        if rationale and rationale.get("kind") in KINDS:
            rationale["kind"] = KINDS[rationale["kind"]]
        connection.execute(sa.update(trials).where(row).values(outcome=outcome, rationale=rationale))
