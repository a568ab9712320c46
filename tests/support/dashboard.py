"""The dashboard in a real browser: a visitor, jobs to look at, and what a page shows."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from playwright.sync_api import Browser, Locator, Page

from service.database import make_engine
from service.keys.service import create_key
from service.sessions import session_factory
from tests.support.stack import Stack, wait_for

WEB = Path(__file__).parents[2] / "service" / "web"
AXE = WEB / "node_modules/axe-core/axe.min.js"
IRIS = WEB / "public/samples/iris.csv"
PAGES = ("jobs", "experiments", "datasets", "models", "submit", "workers", "project")
NOTE_VIOLATIONS = """
window.violations = [];
document.addEventListener('securitypolicyviolation', (event) => {
  window.violations.push(`${event.violatedDirective} ${event.blockedURI}`);
});
"""
LONG = 120_000
PICTURES = os.environ.get("TRAINKIT_PICTURES")
"""Folder for the pictures of the documentation (`make pictures`)."""


@dataclass
class Visit:
    """A page that is watched: what it asks for, and what it complains about."""

    page: Page
    url: str
    key: str
    complaints: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        page = self.page
        page.set_default_timeout(LONG)
        page.add_init_script(NOTE_VIOLATIONS)
        page.on("pageerror", lambda error: self.complaints.append(error.stack or str(error)))
        page.on(
            "console", lambda note: self.complaints.append(note.text) if note.type in ("error", "warning") else None
        )
        page.on("request", lambda request: self._note(request.url))

    def _note(self, address: str) -> None:
        parts = urlsplit(address)
        if parts.scheme in ("http", "https"):
            self.hosts.add(f"{parts.scheme}://{parts.netloc}")

    def sign_in(self) -> None:
        self.page.goto(f"{self.url}/")
        self.page.get_by_label("API key").fill(self.key)
        self.page.get_by_role("button", name="Sign in").click()
        self.page.get_by_role("navigation", name="Pages").wait_for()
        self.complaints.clear()  # a browser reports the 401 of who is not signed in yet

    def go(self, place: str) -> None:
        self.page.goto(f"{self.url}/ui/#/{place}")

    def picture(self, name: str) -> None:
        if PICTURES:
            self.page.wait_for_timeout(1500)
            self.page.screenshot(path=Path(PICTURES) / f"dashboard-{name}.png")

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {self.key}"}, timeout=60)

    def check(self) -> None:
        """Nothing was refused by the page's policy, no error was logged, and no other host was asked."""
        assert self.page.evaluate("violations") == []
        assert self.complaints == []
        assert self.hosts == {self.url}


def visit(browser: Browser, stack: Stack, project: str, **options: object) -> Visit:
    """A visitor with a key of a project of its own."""
    engine = make_engine(stack.database_url)
    with session_factory(engine).begin() as session:
        key = create_key(session, project, "browser")
    engine.dispose()
    found = Visit(browser.new_context(**options).new_page(), stack.url, key)  # type: ignore[arg-type]
    found.sign_in()
    return found


def submit(client: httpx.Client, epochs: int = 20, **changes: object) -> str:
    """Train on the sample dataset, which is uploaded once for each project."""
    found = client.get("/v1/datasets", params={"name": "iris"}).json()["data"]
    if not found:
        query = {"name": "iris", "target": "species"}
        client.put("/v1/datasets", params=query, content=IRIS.read_bytes()).raise_for_status()
    spec = {
        "dataset": "iris",
        "model": {"kind": "mlp", "hidden": [8]},
        "train": {"epochs": epochs, "batch_size": 32},
        **changes,
    }
    answer = client.post("/v1/jobs", json=spec)
    assert answer.status_code in (201, 202), answer.text
    job: str = answer.json()["id"]
    return job


def sweep(client: httpx.Client) -> list[str]:
    """Train 4 rates with 5 seeds each, once for each project; return the jobs, seeds of a rate beside each other."""
    if not client.get("/v1/jobs").json()["data"]:
        ended(client, submit(client, epochs=1, name="first"))  # uploads the dataset, and waits for its check
        spec = {"dataset": "iris", "model": {"kind": "mlp", "hidden": [8]}, "train": {"epochs": 6, "batch_size": 32}}
        space = {"/optimizer/lr": [0.0003, 0.003, 0.03, 0.3], "/train/seed": [0, 1, 2, 3, 4]}
        plan = {"kind": "grid", "name": "rates", "spec": spec, "space": space, "parallel": 20}
        created = client.post("/v1/experiments", json=plan)
        assert created.status_code == 201, created.text
        path = f"/v1/experiments/{created.json()['id']}"
        wait_for(lambda: client.get(path).json()["state"] == "succeeded", seconds=180, what="20 jobs")
    experiment = client.get("/v1/experiments").json()["data"][0]["id"]
    return [trial["job"] for trial in client.get(f"/v1/experiments/{experiment}/results").json()["data"]]


def ended(client: httpx.Client, job: str) -> dict[str, object]:
    def ask() -> dict[str, object] | None:
        found: dict[str, object] = client.get(f"/v1/jobs/{job}").json()
        return found if found["state"] in ("succeeded", "stopped", "failed", "cancelled") else None

    return wait_for(ask, what=f"the end of {job}")


def settle(page: Page) -> None:
    """Wait until the page has what it asked for: nothing of it loads any more."""
    page.wait_for_timeout(300)
    loading = page.locator("main").get_by_text(re.compile("^Loading"))
    wait_for(lambda: loading.count() == 0, seconds=60, what="the page")
    page.wait_for_timeout(300)


def curve(page: Page, title: str) -> Locator:
    return page.get_by_role("img", name=re.compile(rf"^Chart of {title}\."))
