"""Run the cases and print the tables."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from benchmarks.diagnosis.cases import CASES, Case
from benchmarks.diagnosis.judge import Result, judge_case
from trainkit.diagnose.causes import CODES
from trainkit.diagnose.diagnosis import RULESET_VERSION


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one line for each run, then the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks diagnosis")
    parser.add_argument(
        "--half", choices=("first", "second"), help="the half that rules were developed on, or the other"
    )
    parser.add_argument("--only", choices=CODES, help="only cases of this code")
    parser.add_argument("--quick", action="store_true", help="one case for each code and half")
    parser.add_argument("--fresh", action="store_true", help="train everything again")
    parser.add_argument("--no-recommendations", action="store_true", help="do not train the recommended specs")
    parser.add_argument("--seed", type=int, default=0, help="seed of training and split")
    parser.add_argument("--jobs", type=int, default=1, help="number of processes")
    parser.add_argument("--json", type=Path, help="write all results to this file")
    options = parser.parse_args(arguments)
    chosen = [c for c in CASES if options.half in (None, c.half) and options.only in (None, c.code)]
    if options.quick:
        chosen = list({(case.half, case.code): case for case in reversed(chosen)}.values())[::-1]
    judge = partial(
        judge_case, seed=options.seed, fresh=options.fresh, with_recommendation=not options.no_recommendations
    )
    results = []
    for result in _judge_all(judge, chosen, options.jobs):
        print(line(result), flush=True)
        results.append(result)
    print(
        f"\nruleset version {RULESET_VERSION}; {sum(r.cached for r in results)} of {len(results)} cases from the cache"
    )
    for half in dict.fromkeys(result.half for result in results):
        print("\n".join(table([result for result in results if result.half == half], half)))
    if options.json:
        options.json.write_text(json.dumps([result.as_dict() for result in results], indent=1))


def _judge_all(judge: partial[Result], cases: Sequence[Case], jobs: int) -> Iterable[Result]:
    if jobs == 1:
        yield from map(judge, cases)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(judge, cases)


def line(result: Result) -> str:
    """Return the planted fault, the verdicts, and the effect of the first recommendation."""
    mark = "ok  " if result.named[0] == result.code else "MISS"
    named = ", ".join(f"{c} {p:g}" for c, p in zip(result.named[:3], result.confidences, strict=False))
    effect_text = ""
    if result.effect is not None:
        effect = result.effect
        before, after = ("nothing" if value is None else f"{value:.4g}" for value in (effect.before, effect.after))
        word = "better" if effect.improved else "NOT better"
        beyond = {True: ", beyond noise", False: ", within noise", None: ""}[
            effect.beyond_noise if effect.improved else None
        ]
        effect_text = f" | {effect.metric} {before} -> {after}: {word}{beyond} by {json.dumps(result.patch)}"
    state = " (cached)" if result.cached else ""
    return f"{mark} {result.code:24} {result.name:32} {named}{effect_text} [{result.seconds:.1f} s{state}]"


def table(results: Sequence[Result], half: str) -> list[str]:
    """Return the table by code: cases, fault listed first, listed at all, recommendation better by value and beyond noise."""
    sick = [result for result in results if result.code != "healthy"]
    sound = [result for result in results if result.code == "healthy"]
    lines = [f"\n{half} half", f"{'planted':26}{'runs':>6}{'first':>7}{'at all':>8}{'better':>8}{'beyond noise':>14}"]
    codes = [code for code in CODES if any(result.code == code for result in sick)]
    for code in codes:
        lines.append(_row(code, [result for result in sick if result.code == code]))
    if sick:
        lines.append(_row("all", sick))
    if sound:
        alarms = [result for result in sound if result.named[0] != "healthy"]
        lines.append(f"healthy: {len(sound)} runs, {len(alarms)} false alarms ({len(alarms) / len(sound):.0%})")
    missed = [result for result in results if result.named[0] != result.code]
    lines += [f"  {result.code} ({result.name}) taken for {result.named[0]}" for result in missed]
    return lines


def _row(name: str, results: Sequence[Result]) -> str:
    first = sum(result.named[0] == result.code for result in results)
    somewhere = sum(result.code in result.named for result in results)
    helped = sum(result.effect is not None and result.effect.improved for result in results)
    known = [
        result.effect.beyond_noise for result in results if result.effect and result.effect.beyond_noise is not None
    ]
    beyond = f"{sum(known)} of {len(known)}"
    return f"{name:26}{len(results):6}{first:7}{somewhere:8}{helped:8}{beyond:>14}"


if __name__ == "__main__":
    main(sys.argv[1:])
