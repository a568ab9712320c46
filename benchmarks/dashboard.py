"""The dashboard in a real browser: a list of 1,000 jobs, 20 runs of 100,000 points over each other, and
the memory of a page that follows a job for an hour.

    python -m benchmarks dashboard

Needs Chromium. Times are absolute and of this machine: the browser, the API and this script share its cores. Beside each
stands a floor of the same run: an empty page of the same server, its frames, and the transfer of the same data.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from statistics import median

from playwright.sync_api import Page, sync_playwright

from benchmarks.load import served
from benchmarks.service import api
from service.migrate import upgrade
from tests.support.api import row
from tests.support.bulk_rows import Amounts, fill, finished_job
from tests.support.chromium import find_chromium
from tests.support.replayed_stream import (
    LOG_LINES_A_SECOND,
    METRIC_MESSAGES_A_SECOND,
    NAMES,
    Replay,
    heap_growth,
)

JOBS, RUNS, POINTS, ROUNDS = 1000, 20, 100_000, 5
HOUR = 3600
ROWS_A_CALL = 20_000
FRAMES = """(distance) => new Promise((resolve) => {
  const box = document.querySelector('.rows') ?? document.scrollingElement;
  const times = [];
  let last = performance.now();
  const step = (now) => {
    times.push(now - last);
    last = now;
    box.scrollTop += distance;
    if (times.length < 120) requestAnimationFrame(step);
    else resolve(times.slice(1));
  };
  requestAnimationFrame(step);
})"""
DRAWN = """() => new Promise((resolve) => {
  const look = () => {
    const plots = [...document.querySelectorAll('.plot')];
    const done = plots.length > 0 && plots.every((plot) => plot.dataset.points && plot.querySelector('canvas'));
    const data = performance.getEntriesByType('resource').filter((one) => one.name.includes('/metrics/series')).at(-1);
    if (done && data?.responseEnd) resolve([performance.now() - data.responseEnd, data.duration, data.encodedBodySize]);
    else requestAnimationFrame(look);
  };
  look();
})"""


def main() -> None:
    """Fill a database, start the API on it, and look."""
    chromium = find_chromium()
    if chromium is None:
        raise SystemExit("This benchmark needs Chromium on PATH (Debian: apt-get install chromium).")
    with tempfile.TemporaryDirectory(prefix="trainkit-dashboard-") as name:
        folder = Path(name)
        url = f"sqlite:///{folder}/trainkit.db"
        upgrade(url)
        ids = prepare(folder, url)
        with api(folder / "home", url) as (client, _), sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            key = client.headers["Authorization"].partition(" ")[2]
            page = browser.new_context(viewport={"width": 1400, "height": 900}).new_page()
            page.add_init_script(f"sessionStorage.setItem('trainkit-key', '{key}')")
            look(page, str(client.base_url), ids)
            page.goto(f"{client.base_url}/ui/#/jobs/{ids[0]}")
            page.locator(".plot canvas").first.wait_for()
            grown = heap_growth(page, Replay(HOUR, parts=12))
            print(
                f"an hour of a running job ({HOUR * METRIC_MESSAGES_A_SECOND:,} messages of {len(NAMES)} rows, "
                f"{HOUR * LOG_LINES_A_SECOND:,} lines): the heap grew by {grown:.1f} MiB",
                flush=True,
            )
            browser.close()


def prepare(folder: Path, url: str) -> list[str]:
    """1,000 ended jobs, and 20 with 100,000 points each."""
    ids = []
    with served(folder / "home", url) as service:
        fill(service.context.engine, finished_job(service), Amounts(1, JOBS))
        for run in range(RUNS):
            ids.append(service.submit(name=f"run-{run}"))
            claimed = service.claim()
            while claimed.job_id != ids[-1]:
                service.finish(claimed)
                claimed = service.claim()
            for start in range(0, POINTS, ROWS_A_CALL):
                steps = range(start + 1, start + ROWS_A_CALL + 1)
                rows = (row("loss", 1 / math.sqrt(step) + 0.01 * math.sin(step * (run + 1)), step) for step in steps)
                service.append(claimed, *rows)
            service.finish(claimed)
    return ids


def look(page: Page, url: str, ids: list[str]) -> None:
    """Print what a user would wait for."""
    paints, shown, floors = [], [], []
    for _ in range(ROUNDS):
        page.goto(f"{url}/ui/icon.svg")
        floors.append(page.evaluate("performance.getEntriesByType('navigation')[0].duration"))
        page.goto("about:blank")
        page.goto(f"{url}/ui/#/jobs")
        page.locator("tbody td.name a").first.wait_for()
        shown.append(page.evaluate("performance.now()"))
        paints.append(page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
    rows = page.locator("table").first.get_attribute("aria-rowcount")
    print(f"list of {rows} jobs: first paint {median(paints):.0f} ms, first row {median(shown):.0f} ms; ", end="")
    print(f"a static file of the same server {median(floors):.0f} ms", flush=True)
    frames = sorted(page.evaluate(FRAMES, 300))
    page.goto(f"{url}/docs/errors")
    floor = sorted(page.evaluate(FRAMES, 30))
    print(
        f"scrolling: frames of {median(frames):.0f} ms, the slowest of twenty {frames[-6]:.0f} ms; "
        f"a static page {median(floor):.0f} and {floor[-6]:.0f} ms",
        flush=True,
    )
    drawn, transfer, size = [], [], 0
    for _ in range(ROUNDS):
        page.goto("about:blank")
        page.goto(f"{url}/ui/#/compare?jobs={','.join(ids)}&metrics=val_loss")
        after, took, size = page.evaluate(DRAWN)
        drawn.append(after)
        transfer.append(took)
    print(
        f"{RUNS} runs of {POINTS:,} points, thinned by the service: drawn {median(drawn):.0f} ms after the data "
        f"({size / 1000:.0f} kB, requested and transferred in {median(transfer):.0f} ms)",
        flush=True,
    )


if __name__ == "__main__":
    main()
