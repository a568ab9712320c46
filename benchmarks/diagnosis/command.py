"""`python -m benchmarks diagnosis`: train the cases of some seeds, diagnose them, and write the report."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.diagnosis.calibration import SEEDS as CALIBRATION
from benchmarks.diagnosis.calibration import calibrate, main_verdicts, plot_reliability
from benchmarks.diagnosis.examination import Examination, InvestigationFile, examination
from benchmarks.diagnosis.generator import FINAL_FROM, case
from benchmarks.diagnosis.judge import Result, answer, investigation_of, judge_case
from benchmarks.diagnosis.report import report
from benchmarks.diagnosis.trial import ROOT
from trainkit.diagnose.diagnosis import RULESET_VERSION

T = TypeVar("T")
FINAL_RUNS = Path(__file__).with_name("final_runs.jsonl")
"""One line for each time that seeds of the final figure were run: date, commit, seeds, figures."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one line for each case, then the report."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks diagnosis",
        description=f"Seeds 0:183 are for development, {as_ranges(CALIBRATION)} for calibration, "
        f"those from {FINAL_FROM} for the final figure.",
    )
    parser.add_argument("--seeds", type=seeds, metavar="FIRST:END", help="such as 0:100, the default, or 0:20,40:60")
    parser.add_argument("--investigate", type=float, metavar="SECONDS", help="controlled experiments, too")
    parser.add_argument(
        "--final", action="store_true", help=f"allow seeds from {FINAL_FROM}; {FINAL_RUNS.name} records it"
    )
    parser.add_argument("--no-recommendations", action="store_true", help="do not train what is recommended")
    parser.add_argument("--no-twins", action="store_true", help="do not diagnose the twins without the fault")
    parser.add_argument("--fresh", action="store_true", help="train everything again")
    parser.add_argument(
        "--records", type=Path, metavar="DIR", help="keep what was trained here, and read it whatever has changed since"
    )
    parser.add_argument(
        "--calibrate",
        action="store_true",
        help=f"fit the confidences on {as_ranges(CALIBRATION)}; with --investigate those of investigations",
    )
    parser.add_argument(
        "--reliability", type=Path, metavar="PNG", help="plot confidences against shares that are right"
    )
    parser.add_argument("--jobs", type=int, default=1, help="number of processes")
    parser.add_argument("--json", type=Path, help="write all results to this file")
    parser.add_argument("--markdown", type=Path, help="write the report to this file")
    options = parser.parse_args(arguments)
    if options.calibrate:
        numbers = options.seeds or CALIBRATION
        if not set(numbers) <= set(CALIBRATION):
            parser.error(f"confidences are fitted on seeds of {as_ranges(CALIBRATION)} alone")
        facts = {name: run_facts(numbers, None)[name] for name in ("date", "commit", "seeds")}
        seconds = options.investigate
        examined = partial(_examined, fresh=options.fresh, records=options.records, seconds=seconds)
        cases, findings = zip(*_in_order(examined, numbers, options.jobs), strict=True)
        if seconds is not None:
            facts["seconds of investigation"] = seconds
        text, points = calibrate(cases, None if seconds is None else findings, facts)
        print(text)
        if options.reliability:
            title = f"by folds, seeds {facts['seeds']}, {facts['date'][:10]}, {facts['commit']}"
            plot_reliability(points, title, options.reliability)
        return
    options.seeds = options.seeds or tuple(range(100))
    if (max(options.seeds) >= FINAL_FROM) != options.final:
        parser.error(f"seeds from {FINAL_FROM} are for the final figure: they, and no others, are run with --final")
    facts = run_facts(options.seeds, options.investigate)
    judge = partial(
        judge_seed,
        investigation=options.investigate,
        fresh=options.fresh,
        recommend=not options.no_recommendations,
        records=options.records,
        twins=not options.no_twins,
    )
    results, began = [], time.perf_counter()
    for result in _in_order(judge, options.seeds, options.jobs):
        print(line(result), flush=True)
        results.append(result)
    facts["seconds"] = round(time.perf_counter() - began)
    text = report(results, facts)
    print(f"\n{text}")
    if options.markdown:
        options.markdown.write_text(text)
    if options.reliability:
        mode = "passive" if options.investigate is None else "investigated"
        title = f"{mode}, seeds {facts['seeds']}, {facts['date'][:10]}, {facts['commit']}"
        plot_reliability(main_verdicts(results, mode), title, options.reliability)
    if options.json:
        document = {**facts, "results": [result.as_dict() for result in results]}
        options.json.write_text(json.dumps(document, indent=1))
    if options.final:
        record_final_run(results, facts)


def _examined(
    seed: int, *, fresh: bool, records: Path | None, seconds: float | None
) -> tuple[Examination, Mapping[str, Any]]:
    """What is true of a case, and the findings of its investigation; none without seconds."""
    one = case(seed)
    found = examination(one, fresh=fresh, records=records, twins=False)
    if seconds is None:
        return found, {}
    return found, investigation_of(one, found, seconds, InvestigationFile(one, seconds, records, fresh=fresh))


def seeds(text: str) -> tuple[int, ...]:
    """Return the seeds of `FIRST:END`, END not among them, or of several of these with commas between."""
    found: list[int] = []
    for part in text.split(","):
        first, _, end = part.partition(":")
        if not (first.isdigit() and end.isdigit() and int(first) < int(end)):
            raise argparse.ArgumentTypeError(f"seeds are FIRST:END, e.g. 0:100 or 0:20,40:60; got {text!r}")
        found += range(int(first), int(end))
    return tuple(found)


def as_ranges(numbers: Sequence[int]) -> str:
    """Return what `seeds` reads."""
    begins = [place for place, one in enumerate(numbers) if not place or one != numbers[place - 1] + 1]
    ends = [*begins[1:], len(numbers)]
    return ",".join(f"{numbers[a]}:{numbers[b - 1] + 1}" for a, b in zip(begins, ends, strict=True))


def run_facts(numbers: Sequence[int], investigation: float | None) -> dict[str, Any]:
    """Return what a reader needs to repeat the run: date, commit, seeds, seconds of investigation, threads, machine."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "ruleset version": RULESET_VERSION,
        "seeds": as_ranges(numbers),
        "seconds of investigation": investigation,
        "threads": 1,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }


def commit() -> str:
    """Return the commit of the working tree, with `-dirty` where files differ from it."""
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    return subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def judge_seed(seed: int, **options: Any) -> Result:
    """Judge the case of a seed."""
    return judge_case(case(seed), **options)


def _in_order(work: Callable[[int], T], numbers: Sequence[int], jobs: int) -> Iterator[T]:
    if jobs == 1:
        yield from map(work, numbers)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(work, numbers)


def line(result: Result) -> str:
    """Return the case and what each diagnosis says of it."""
    answers = []
    for name, opinion in result.opinions.items():
        named = ", ".join(f"{c} {p:.2f}" for c, p in zip(opinion.named[:2], opinion.confidences, strict=False))
        mark = answer(result, opinion) if result.truth == "faulty" else named
        effect = f", {opinion.effect['outcome']}" if opinion.effect else ""
        answers.append(f"{name}: {mark} [{named}{effect}]" if mark != named else f"{name}: {named}")
    return f"{result.truth:9} {result.name} | {' | '.join(answers)} ({result.seconds:.1f} s)"


def record_final_run(results: Sequence[Result], facts: dict[str, Any]) -> None:
    """Append one line to FINAL_RUNS, so that every look at the final seeds is on record."""
    counts: dict[str, dict[str, int]] = {}
    for result in results:
        for name, opinion in result.opinions.items():
            key = answer(result, opinion) if result.truth == "faulty" else f"{result.truth}: {opinion.named[0]}"
            counts.setdefault(name, {}).setdefault(key, 0)
            counts[name][key] += 1
    with FINAL_RUNS.open("a") as file:
        file.write(json.dumps({**facts, "answers": counts}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
