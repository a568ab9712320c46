"""The synchronous client is the asynchronous one without `await`."""

from __future__ import annotations

import importlib.util
import inspect
import shutil
from pathlib import Path

from trainkit_client import AsyncClient, Client

ROOT = Path(__file__).parents[2]


def test_the_generated_modules_are_up_to_date(tmp_path: Path) -> None:
    location = importlib.util.spec_from_file_location("make_sync", ROOT / "client" / "make_sync.py")
    assert location is not None
    assert location.loader is not None
    make_sync = importlib.util.module_from_spec(location)
    location.loader.exec_module(make_sync)
    # inside the project, so that the formatter finds its settings
    folder = ROOT / ".cache" / f"sync-{tmp_path.parent.name}-{tmp_path.name}"
    folder.mkdir(parents=True)
    try:
        make_sync.generate(folder)
        generated = {path.name: path.read_text() for path in folder.glob("*.py")}
    finally:
        shutil.rmtree(folder)
    stored = {path.name: path.read_text() for path in (make_sync.PACKAGE / "_sync").glob("*.py")}
    assert generated == {name: text for name, text in stored.items() if name not in make_sync.KEPT}, (
        "run: python client/make_sync.py"
    )


def test_both_clients_have_the_same_methods_with_the_same_parameters() -> None:
    def surface(client: type) -> dict[str, list[str]]:
        public = {name: member for name, member in vars(client).items() if not name.startswith("_")}
        return {
            name.removeprefix("a") if name == "aclose" else name: list(inspect.signature(member).parameters)
            for name, member in public.items()
            if callable(member)
        }

    assert surface(AsyncClient) == surface(Client)
    assert "request" in surface(Client)
