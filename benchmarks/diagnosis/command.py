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
from benchmarks.diagnosis.judge import Result, judged
from trainkit.diagnose.diagnosis import RULESET_VERSION
from trainkit.diagnose.verdicts import CODES


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a line a run, then the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks diagnosis")
    parser.add_argument(
        "--half", choices=("first", "second"), help="the half that rules were developed on, or the other"
    )
    parser.add_argument("--only", choices=CODES, help="cases of this code alone")
    parser.add_argument("--quick", action="store_true", help="one case a code and half")
    parser.add_argument("--fresh", action="store_true", help="train everything again")
    parser.add_argument("--no-prescriptions", action="store_true", help="diagnose alone")
    parser.add_argument("--seed", type=int, default=0, help="of training and cut")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--json", type=Path, help="write all results to this file")
    asked = parser.parse_args(arguments)
    chosen = [c for c in CASES if asked.half in (None, c.half) and asked.only in (None, c.code)]
    if asked.quick:
        chosen = list({(case.half, case.code): case for case in reversed(chosen)}.values())[::-1]
    look = partial(judged, seed=asked.seed, fresh=asked.fresh, prescribe=not asked.no_prescriptions)
    results = []
    for result in _mapped(look, chosen, asked.jobs):
        print(line(result), flush=True)
        results.append(result)
    print(
        f"\nedition {RULESET_VERSION} of the rules; {sum(r.cached for r in results)} of {len(results)} cases from the cache"
    )
    for half in dict.fromkeys(result.half for result in results):
        print("\n".join(table([result for result in results if result.half == half], half)))
    if asked.json:
        asked.json.write_text(json.dumps([result.as_dict() for result in results], indent=1))


def _mapped(look: partial[Result], cases: Sequence[Case], jobs: int) -> Iterable[Result]:
    if jobs == 1:
        yield from map(look, cases)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(look, cases)


def line(result: Result) -> str:
    """What was planted, what was named, and what came of the advice."""
    mark = "ok  " if result.named[0] == result.code else "MISS"
    named = ", ".join(f"{c} {p:g}" for c, p in zip(result.named[:3], result.confidences, strict=False))
    told = ""
    if result.effect is not None:
        found = result.effect
        before, after = ("nothing" if value is None else f"{value:.4g}" for value in (found.before, found.after))
        word = "better" if found.improved else "NOT better"
        beyond = {True: ", beyond noise", False: ", within noise", None: ""}[
            found.beyond_noise if found.improved else None
        ]
        told = f" | {found.metric} {before} -> {after}: {word}{beyond} by {json.dumps(result.patch)}"
    state = " (cached)" if result.cached else ""
    return f"{mark} {result.code:24} {result.name:32} {named}{told} [{result.seconds:.1f} s{state}]"


def table(results: Sequence[Result], half: str) -> list[str]:
    """Per code: cases, planted named first, named at all, first next spec better by value and beyond the noise."""
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
