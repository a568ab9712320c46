"""Early-stop rules by themselves, without a job: parsed, completed, and checked against the series that were logged."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from pydantic import ValidationError

from trainkit.spec.early_stop import EarlyStopRule, RuleSet
from trainkit.spec.metrics import DIRECTIONS, direction, split_metric
from trainkit.spec.problems import Problem, SpecError, nearest, problems_from_validation
from trainkit.spec.resolve import with_mode

HINTS = {
    "roc_auc": "It is measured only in jobs where a rule, the schedule or `train.monitor` names it.",
    "se": "Standard errors are logged with every evaluation of a validation part since they exist; this job has none.",
}


def parse_rules(document: Any) -> tuple[EarlyStopRule, ...] | None:
    """The rules of `{"rules": [...]}` with their modes written out; None for the job's own. Raises SpecError."""
    if not isinstance(document, dict):
        raise SpecError([Problem("", "not_an_object", "the body is an object with `rules`", 'Send {"rules": [...]}.')])
    try:
        given = RuleSet.model_validate(document).rules
    except ValidationError as error:
        raise SpecError(problems_from_validation(error, document, RuleSet)) from None
    if given is None:
        return None
    problems = [problem for index, rule in enumerate(given) for problem in _problems(f"/rules/{index}", rule)]
    if problems:
        raise SpecError(problems)
    return tuple(with_mode(rule) for rule in given)


def needs(rule: EarlyStopRule) -> tuple[str, ...]:
    """The series that the rule cannot do without."""
    match rule.kind:
        case "patience" | "target" | "median" | "percentile" | "successive_halving":
            return (rule.monitor,)
        case "noise_patience":
            return (rule.monitor, f"{rule.monitor}_se")
        case "gap" | "no_progress":
            return ("train_loss", "val_loss")
        case "stalled":
            return ("train_loss",)
        case _:
            return ()


def check_logged(rules: Sequence[EarlyStopRule], logged: Collection[str]) -> None:
    """Raise SpecError for every rule that needs a series that was not logged."""
    problems = []
    for index, rule in enumerate(rules):
        missing = [name for name in needs(rule) if name not in logged]
        if missing:
            where = f"/rules/{index}" + ("/monitor" if hasattr(rule, "monitor") else "")
            hint = next((text for ending, text in HINTS.items() if missing[0].endswith(ending)), "")
            known = ", ".join(sorted(name for name in logged if name.partition("_")[2] in DIRECTIONS)) or "none"
            message = f"the rule needs {' and '.join(missing)}, which this job has not logged"
            problems.append(Problem(where, "not_logged", message, f"{hint} Logged: {known}.".strip()))
    if problems:
        raise SpecError(problems)


def _problems(where: str, rule: EarlyStopRule) -> Iterator[Problem]:
    """What is wrong with a rule whatever the job is."""
    monitor, mode = getattr(rule, "monitor", None), getattr(rule, "mode", "auto")
    if monitor is None:
        return
    choices = [f"{part}_{name}" for part in ("val", "train") for name in DIRECTIONS]
    try:
        part, metric = split_metric(monitor)
    except ValueError:
        hint = " ".join(word for word in (nearest(monitor, choices), f"Choices: {', '.join(choices)}.") if word)
        yield Problem(f"{where}/monitor", "unknown_metric", f"unknown metric {monitor!r}", hint)
        return
    if part == "test":
        message = "the test part must not decide anything"
        yield Problem(f"{where}/monitor", "test_is_held_out", message, f"Use val_{metric}.")
    elif mode in ("min", "max") and mode != direction(monitor):
        better = "smaller" if direction(monitor) == "min" else "larger"
        yield Problem(
            f"{where}/mode", "wrong_mode", f"{monitor} is better when {better}", f'Use "{direction(monitor)}".'
        )
