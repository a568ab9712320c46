"""An hour of a running job's stream, replayed at once to a page, and how much its heap has grown by then."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from playwright.sync_api import Page, Route

from tests.support.stack import wait_for

METRIC_MESSAGES_A_SECOND, LOG_LINES_A_SECOND = 4, 1
"""As often as a worker ships rows and lines (`SHIP_SECONDS` of worker/sink.py and worker/log_shipper.py)."""
NAMES = (
    *(("train", name) for name in ("loss", "accuracy", "lr", "grad_norm", "weight_norm", "batch_loss")),
    *(("val", name) for name in ("loss", "loss_se", "accuracy", "accuracy_se")),
    *(("system", name) for name in ("cpu_percent", "rss_bytes")),
)
MIB = 2**20


@dataclass
class Replay:
    """Answers the stream of every job with so many seconds of messages, cut into `parts` connections."""

    seconds: int
    parts: int
    sent: int = 0

    def answer(self, route: Route) -> None:
        """Send the next part; what is not the last one ends without `end`, so that the page comes back."""
        if self.sent == self.parts:
            route.fulfill(status=204)
            return
        first, last = (self.seconds * part // self.parts for part in (self.sent, self.sent + 1))
        self.sent += 1
        body = "".join(messages(second) for second in range(first, last))
        route.fulfill(status=200, headers={"Content-Type": "text/event-stream"}, body=body)


def messages(second: int) -> str:
    """What a second of a running job sends."""
    text = ""
    for part in range(METRIC_MESSAGES_A_SECOND):
        step = 10_000 + second * METRIC_MESSAGES_A_SECOND + part
        at = datetime(2030, 1, 1, tzinfo=UTC) + timedelta(seconds=second + part / METRIC_MESSAGES_A_SECOND)
        rows = [
            {
                "seq": step * len(NAMES) + place,
                "attempt": 1,
                "split": split,
                "name": name,
                "step": step,
                "epoch": step // 10,
                "value": math.sin(step * (place + 1)) + 1 / step,
                "at": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                "superseded": False,
            }
            for place, (split, name) in enumerate(NAMES)
        ]
        text += f"event: metric\ndata: {json.dumps(rows)}\nid: {rows[-1]['seq']}.0.0\n\n"
    line = {"seq": second + 1, "at": "2030-01-01T00:00:00.000Z", "level": "info", "source": "fit", "text": "x" * 120}
    return text + f"event: log\ndata: {json.dumps(line)}\n\n"


def heap_growth(page: Page, replay: Replay) -> float:
    """MiB that the page's heap has grown by when all is drawn, each time after a garbage collection.

    The page must show the curves of a job, and `replay` must answer its stream from the next load on.
    """
    devtools = page.context.new_cdp_session(page)

    def used() -> float:
        for _ in range(2):
            devtools.send("HeapProfiler.collectGarbage")
        return float(devtools.send("Runtime.getHeapUsage")["usedSize"]) / MIB

    def all_sent() -> bool:
        page.wait_for_timeout(50)  # Playwright answers requests only while it is asked for something
        return replay.sent == replay.parts

    page.route("**/v1/jobs/*/stream", replay.answer)
    before = used()
    page.reload()
    wait_for(all_sent, seconds=600, what="all parts of the stream")
    page.locator(".plot canvas").first.wait_for()
    page.wait_for_timeout(2000)
    grown = used() - before
    assert page.locator(".plot").first.get_attribute("data-points") is not None
    return grown
