"""Read an experiment's results from standard input and print its table. Standard library only."""

import json
import sys


def main() -> None:
    results = json.load(sys.stdin)
    rows = [[str(row["number"]), row["state"], shown(row["params"]), figure(row["value"])] for row in results["data"]]
    table = [["", "state", "", results["metric"] or ""], *rows]
    widths = [max(len(row[column]) for row in table) for column in range(4)]
    for row in table:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print()
    for one in results["summaries"]:
        if one["n"] > 1 and one["mean"] is not None:
            interval = f"95 % interval {figure(one['low'])} to {figure(one['high'])}"
            print(
                f"  {one['variant']}, {one['metric']}: mean {figure(one['mean'])}, sd {figure(one['sd'])}, {interval}"
            )
    for one in results["comparisons"]:
        print(f"  {one['summary']}")
    for step in results["steps"] or ():
        print(f"  {step['text']}")


def shown(params: dict[str, object]) -> str:
    return ", ".join(f"{key.rpartition('/')[2]} {value}" for key, value in params.items())


def figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


if __name__ == "__main__":
    main()
