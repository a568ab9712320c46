"""The tables of the benchmark, as Markdown. Every share has Wilson's 95 % interval."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from benchmarks.diagnosis.baselines import BASELINES
from benchmarks.diagnosis.case import STRENGTHS
from benchmarks.diagnosis.judge import QUIET, Opinion, Result, answer, wrong_and_sure
from trainkit.diagnose.estimates import wilson_interval

Row = list[str]


def share(count: int, total: int) -> str:
    """Return `12 of 20, 60 % (39 to 78)`."""
    if not total:
        return "-"
    low, high = wilson_interval(count / total, total)
    return f"{count} of {total}, {count / total:.0%} ({low * 100:.0f} to {high * 100:.0f})".replace("%", " %")


def report(results: Sequence[Result], facts: dict[str, Any]) -> str:
    """Return the whole report: figures, by fault, by strength, sound runs, mistakes, baselines."""
    modes = list(results[0].opinions) if results else []
    lines = ["# Diagnosis on generated cases", "", *(f"- {name}: {value}" for name, value in facts.items()), ""]
    counts = Counter(result.truth for result in results)
    lines += [f"- {truth}: {count} cases" for truth, count in sorted(counts.items())]
    for mode in modes:
        lines += ["", f"## {mode.capitalize()}", "", *_table(["figure", "share"], _figures(results, mode))]
    for title, groups in (("By fault", _by_code(results)), ("By strength", _by_strength(results))):
        for mode in modes:
            rows = [[name, *_row(group, mode)] for name, group in groups]
            lines += ["", f"## {title}, {mode}", "", *_table(["", *COLUMNS], rows)]
    lines += ["", "## Sound runs", "", *_table(["family", *modes], _sound_rows(results, modes))]
    lines += ["", "## Baselines", "", *_table(BASELINE_COLUMNS, _baseline_rows(results, modes))]
    for mode in modes:
        lines += ["", f"## Mistakes, {mode}", "", *_mistakes(results, mode)]
    return "\n".join(lines) + "\n"


def _table(header: Row, rows: Iterable[Row]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows)]


def of_truth(results: Iterable[Result], truth: str) -> list[Result]:
    """Return the cases of a truth."""
    return [result for result in results if result.truth == truth]


def false_alarm(result: Result, mode: str) -> bool:
    """Return whether a fault is the first verdict."""
    return result.opinions[mode].named[0] not in QUIET


def _figures(results: Sequence[Result], mode: str) -> list[Row]:
    faulty, sound, none = (of_truth(results, truth) for truth in ("faulty", "sound", "no effect"))
    answers = [answer(result, result.opinions[mode]) for result in faulty]
    twice = [result for result in faulty if len(result.effective) > 1]
    outcomes = [result.opinions[mode].effect for result in faulty]
    judged = [one["outcome"] if one else "none" for one in outcomes]
    settled = [*faulty, *sound, *none]

    def all_named(result: Result) -> bool:
        return set(result.effective) <= set(result.opinions[mode].named)

    twins = [result for result in results if result.twin]
    figures = [
        ("planted fault named first", share(answers.count("first"), len(faulty))),
        (
            "named first, or inconclusive with it among the suspects",
            share(answers.count("first") + answers.count("suspect"), len(faulty)),
        ),
        ("named at all", share(sum(one in ("first", "later") for one in answers), len(faulty))),
        ("of two faults both named", share(sum(all_named(result) for result in twice), len(twice))),
        ("another fault named first", share(sum(one in ("wrong", "later") for one in answers), len(faulty))),
        ("called healthy", share(answers.count("healthy"), len(faulty))),
        ("false alarms on sound runs", share(sum(false_alarm(one, mode) for one in sound), len(sound))),
        (
            "sound runs inconclusive",
            share(sum(one.opinions[mode].named[0] == "inconclusive" for one in sound), len(sound)),
        ),
        (
            "wrong and sure (> 0.8), of all",
            share(sum(wrong_and_sure(r, r.opinions[mode]) for r in settled), len(settled)),
        ),
        ("no effect: healthy or inconclusive", share(sum(not false_alarm(one, mode) for one in none), len(none))),
        (
            "no effect: the planted setting named",
            share(sum(one.opinions[mode].named[0] in _planted(one) for one in none), len(none)),
        ),
    ]
    if any(outcomes):  # else no recommendation was trained
        figures += [
            ("first recommendation better beyond noise", share(judged.count("better"), len(faulty))),
            ("first recommendation worse beyond noise", share(judged.count("worse"), len(faulty))),
            ("no recommendation", share(judged.count("none"), len(faulty))),
            ("false alarms whose first recommendation is better beyond noise", _improvable(sound, mode)),
        ]
    if mode == "passive":
        figures.append(
            ("alarms on twins without the fault", share(sum(one.twin[0] not in QUIET for one in twins), len(twins)))
        )
    figures.append(("seconds", f"{sum(result.opinions[mode].seconds for result in results):.1f} in all"))
    return [list(one) for one in figures]


def _improvable(sound: Sequence[Result], mode: str) -> str:
    """Alarms on runs meant as sound that turned out to be right to the samples aside, of all alarms."""
    effects = [one.opinions[mode].effect for one in sound if false_alarm(one, mode)]
    return share(sum(effect["outcome"] == "better" for effect in effects if effect), len(effects))


def _planted(result: Result) -> set[str]:
    return {one["code"] for one in result.planted}


COLUMNS = ["cases", "first", "first or suspect", "at all", "healthy", "better", "worse"]


def _row(results: Sequence[Result], mode: str) -> Row:
    answers = [answer(result, result.opinions[mode]) for result in results]
    effects = [result.opinions[mode].effect for result in results]
    outcomes = [effect["outcome"] for effect in effects if effect]
    counts = (
        len(results),
        answers.count("first"),
        answers.count("first") + answers.count("suspect"),
        sum(one in ("first", "later") for one in answers),
        answers.count("healthy"),
        outcomes.count("better"),
        outcomes.count("worse"),
    )
    return [str(count) for count in counts]


def _by_code(results: Sequence[Result]) -> list[tuple[str, list[Result]]]:
    """Cases with one fault that has an effect by its code; those with two together."""
    faulty = of_truth(results, "faulty")
    codes = sorted({code for result in faulty for code in result.effective})
    single = [(code, [result for result in faulty if result.effective == [code]]) for code in codes]
    return [*single, ("two faults", [result for result in faulty if len(result.effective) > 1]), ("all", faulty)]


def _by_strength(results: Sequence[Result]) -> list[tuple[str, list[Result]]]:
    """Cases with one fault planted, and an effect, by its strength."""
    faulty = [result for result in of_truth(results, "faulty") if len(result.planted) == 1]
    return [(one, [result for result in faulty if result.planted[0]["strength"] == one]) for one in STRENGTHS]


def _sound_rows(results: Sequence[Result], modes: Sequence[str]) -> list[Row]:
    sound = of_truth(results, "sound")
    rows = []
    for family in sorted({result.family for result in sound}):
        group = [result for result in sound if result.family == family]
        rows.append([family, *(f"{sum(false_alarm(r, mode) for r in group)} alarms of {len(group)}" for mode in modes)])
    return rows


BASELINE_COLUMNS = ["rules", "named first", "named at all", "false alarms", "named where there is no effect"]


def _baseline_rows(results: Sequence[Result], modes: Sequence[str]) -> list[Row]:
    """The published rules beside ours. A finding of theirs names every code that it may mean."""
    faulty, sound, none = (of_truth(results, truth) for truth in ("faulty", "sound", "no effect"))

    def row(name: str, findings: Callable[[Result], list[list[str]]]) -> Row:
        first = sum(bool(set(result.effective) & set(*findings(result)[:1])) for result in faulty)
        at_all = sum(bool(set(result.effective) & set().union(*findings(result))) for result in faulty)
        return [
            name,
            share(first, len(faulty)),
            share(at_all, len(faulty)),
            share(sum(bool(findings(result)) for result in sound), len(sound)),
            share(sum(bool(findings(result)) for result in none), len(none)),
        ]

    def ours(mode: str) -> Callable[[Result], list[list[str]]]:
        return lambda result: [[code] for code in result.opinions[mode].named if code not in QUIET]

    rows = [row(name, lambda result, name=name: result.baselines[name]) for name in BASELINES]  # type: ignore[misc]
    return [*rows, *(row(f"trainkit, {mode}", ours(mode)) for mode in modes)]


def _mistakes(results: Sequence[Result], mode: str) -> list[str]:
    lines = []
    for result in results:
        opinion = result.opinions[mode]
        right = (
            answer(result, opinion) in ("first", "suspect")
            if result.truth == "faulty"
            else not false_alarm(result, mode)
        )
        if not right or result.truth == "unsettled":
            lines.append(f"- {result.name} [{result.truth}]: {_answer_text(opinion)}{_effects(result)}")
    return lines or ["none"]


def _answer_text(opinion: Opinion) -> str:
    named = ", ".join(f"{c} {p:.2f}" for c, p in zip(opinion.named[:3], opinion.confidences, strict=False))
    return f"{named} (suspects {', '.join(opinion.suspects)})" if opinion.suspects else named


def _effects(result: Result) -> str:
    """What the planted faults did, or a reference that does better."""
    found = [one["effect"] for one in result.planted]
    if result.reference and result.truth == "unsettled":
        found = [result.reference]
    return (
        "; " + "; ".join(f"{one['metric']} {one['before']:.3g} -> {one['after']:.3g}" for one in found) if found else ""
    )
