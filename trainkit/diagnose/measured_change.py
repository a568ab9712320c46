"""Changes that an investigation has tried, with what they did: recommendations, and changes that hurt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from trainkit.diagnose.investigation_history import (
    BASE,
    OTHER_SPLIT,
    InvestigationHistory,
    Tested,
    TriedChange,
    VariantResult,
)
from trainkit.diagnose.paired import PairedEffect
from trainkit.diagnose.spec_changes import Patch
from trainkit.diagnose.variant_metrics import gap_to_test, interval_width
from trainkit.diagnose.verdicts import Code
from trainkit.spec.patch import merge_patch


@dataclass(frozen=True, slots=True)
class MeasuredChange:
    """A change that was tried: its patch, the whole changed spec, and its measured effect.

    measured: `{metric, before, after, gain, low, high, p_value, samples, variant, artifact, confirmed}`; the interval is
    the 95 % one of the paired gain, of folds or of runs with another seed where there are such (`confirmed`), and
    `artifact` the folder of the trained weights.
    """

    patch: Patch
    spec: dict[str, Any]
    why: str
    code: Code | None
    measured: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


class Measurement:
    """What the changes of an investigation did, as its findings show it."""

    def __init__(self, history: InvestigationHistory) -> None:
        self._history = history

    def change(self, tested: Tested, code: Code | None) -> MeasuredChange:
        """What a change did, for the verdict `code`."""
        change = tested.change
        measured = self._compared(change.measure, tested.before, tested.after, tested.effect)
        if change.name in OTHER_SPLIT:
            measured = self._of_another_split(change, tested)
        elif self._history.is_repeated(tested):
            before, after = self._history.values(tested, change.measure)
            shown = {"before": before} if tested.before.scores is not None else {}
            measured |= {**shown, "after": after, "confirmed": True}
        elif (runs := self._history.confirmation(change.name)) is not None:
            effect = self._history.confirmed(change.name, change.measure)
            if effect is not None:
                measured = {**self._compared(change.measure, *runs, effect), "confirmed": True}
        # the weights to go on from are those of the submitted seed
        measured |= {"variant": tested.after.variant.name, "artifact": tested.after.artifact}
        return self._changed(change.patch, change.why, code, measured)

    def combination(self, result: VariantResult, code: Code) -> MeasuredChange:
        """What several changes at once did."""
        effect = self._history.combination_effect(result.variant.name.split("@")[0], BASE)
        base = self._history.base
        assert effect is not None
        assert base is not None
        measured = self._compared("skill", base, result, effect)
        return self._changed(result.variant.patch, result.variant.why, code, measured)

    def _compared(
        self, metric: str, before: VariantResult, after: VariantResult, effect: PairedEffect
    ) -> dict[str, Any]:
        one, other = self._history.scores_of(before), self._history.scores_of(after)
        return {
            "metric": metric,
            "before": None if before.scores is None or one is None else one.value(metric),
            "after": None if other is None else other.value(metric),
            "gain": effect.gain,
            "low": effect.low,
            "high": effect.high,
            "p_value": effect.p_value,
            "samples": effect.samples,
            "variant": after.variant.name,
            "artifact": after.artifact,
            "confirmed": False,
        }

    def _of_another_split(self, change: TriedChange, tested: Tested) -> dict[str, Any]:
        """What cannot be paired: the half-width of the metric's 95 % interval, or the gap of test and validation."""
        values: list[float | None]
        if change.name == "larger_validation":
            metric, values = "half-width of the interval", [interval_width(r) for r in (tested.before, tested.after)]
        else:
            metric = "difference of test and validation"
            values = [
                None if (gap := gap_to_test(r, self._history.record.parts)) is None else gap[0]
                for r in (tested.before, tested.after)
            ]
        gain = None if values[0] is None or values[1] is None else values[0] - values[1]
        unknown = dict.fromkeys(("low", "high", "p_value", "samples"))
        return {"metric": metric, "before": values[0], "after": values[1], "gain": gain, **unknown, "confirmed": False}

    def _changed(self, patch: Patch, why: str, code: Code | None, measured: Mapping[str, Any]) -> MeasuredChange:
        return MeasuredChange(patch, dict(merge_patch(self._history.document, patch)), why, code, dict(measured))
