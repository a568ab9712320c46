"""Read a job's server-sent events from standard input and print one line an epoch. Standard library only."""

import json
import sys

WATCHED = ("train_loss", "val_loss", "val_accuracy", "val_mse")
BAR = 24


def main() -> None:
    event, data, epoch, values = "message", "", 0, {}
    best: float | None = None
    for raw in sys.stdin:
        line = raw.rstrip("\n")
        if line.startswith("event:"):
            event = line[6:].strip()
        elif line.startswith("data:"):
            data += line[5:].strip()
        elif not line and data:
            content = json.loads(data)
            if event == "metric":
                for row in content if isinstance(content, list) else [content]:
                    name = f"{row['split']}_{row['name']}"
                    if name in WATCHED:
                        epoch = row["epoch"]
                        values[name] = row["value"]
                    if "val_loss" in values and name.startswith("val_") and name != "val_loss":
                        best = show(epoch, values, best)
                        values = {}
            elif event == "event" and content.get("to"):
                print(f"  {content['to']}" + (f": {content['reason']}" if content.get("reason") else ""), flush=True)
            elif event == "end":
                return
            event, data = "message", ""


def show(epoch: int, values: dict[str, float | None], best: float | None) -> float | None:
    """One line: epoch, the numbers, and a bar for accuracy; a star marks a new best."""
    accuracy = values.get("val_accuracy")
    numbers = "  ".join(f"{name} {value:.4f}" for name, value in values.items() if value is not None)
    bar = star = ""
    if accuracy is not None:
        filled = round(BAR * accuracy)
        bar = "█" * filled + "░" * (BAR - filled)
        star = " *" if best is None or accuracy > best else ""
        best = accuracy if best is None else max(best, accuracy)
    print(f"  epoch {epoch:3d}  {numbers}  {bar}{star}", flush=True)
    return best


if __name__ == "__main__":
    main()
