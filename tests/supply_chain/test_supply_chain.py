"""The bill of materials is the lock files', and an audit that could not be done never looks like a clean one."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from supply_chain import audit, sbom
from supply_chain.lock_files import LOCK_FILES, PINNED, ROOT, LockedPackage, locked_packages, normalized
from tests.support.stack import free_port


def test_every_pinned_line_is_a_component_with_the_hashes_of_its_files() -> None:
    components = sbom.bill_of_materials(locked_packages())["components"]
    by_purl = {one["purl"]: one for one in components}
    assert len(by_purl) == len(components) > 100
    for file in LOCK_FILES:
        for line in (ROOT / file).read_text().splitlines():
            if match := PINNED.match(line):
                component = by_purl[f"pkg:pypi/{normalized(match[1])}@{match[2]}"]
                assert file in [one["value"] for one in component["properties"]]
                assert component["hashes"]


def test_the_document_is_cyclonedx_and_its_references_resolve() -> None:
    document = sbom.bill_of_materials(locked_packages())
    assert (document["bomFormat"], document["specVersion"], document["version"]) == ("CycloneDX", "1.6", 1)
    refs = {one["bom-ref"] for one in document["components"]} | {document["metadata"]["component"]["bom-ref"]}
    assert {one["ref"] for one in document["dependencies"]} == refs
    needs = {one["ref"]: one["dependsOn"] for one in document["dependencies"]}
    assert {ref for found in needs.values() for ref in found} <= refs
    (torch,) = [ref for ref in refs if ref.startswith("pkg:pypi/torch@")]
    (fastapi,) = [ref for ref in refs if ref.startswith("pkg:pypi/fastapi@")]
    (starlette,) = [ref for ref in refs if ref.startswith("pkg:pypi/starlette@")]
    assert starlette in needs[fastapi]
    assert torch in needs[document["metadata"]["component"]["bom-ref"]]


def test_the_same_lock_files_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.json", "b.json"):
        assert sbom.main(["--output", str(tmp_path / name)]) == 0
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


@pytest.mark.parametrize("line", ["numpy>=2.0", "numpy==2.0.0", "git+ssh://host/repository"])
def test_a_line_without_version_or_hash_is_an_error(tmp_path: Path, line: str) -> None:
    for name in LOCK_FILES:
        (tmp_path / name).write_text(f"{line}\n")
    with pytest.raises(ValueError, match=r"pins no version|without a hash"):
        locked_packages(tmp_path)


class OsvDatabase(BaseHTTPRequestHandler):
    """A database that knows one vulnerable package, on two pages."""

    protocol_version = "HTTP/1.1"
    reply: Any = None

    def do_POST(self) -> None:
        queries = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["queries"]
        body = json.dumps(self.reply or {"results": [self._result(query) for query in queries]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _result(self, query: dict[str, Any]) -> dict[str, Any]:
        if query["package"]["purl"] != "pkg:pypi/bad@1.0":
            return {}
        if query.get("page_token") == "2":
            return {"vulns": [{"id": "GHSA-2"}]}
        return {"vulns": [{"id": "GHSA-1"}], "next_page_token": "2"}

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def database() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), OsvDatabase)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_known_vulnerabilities_are_listed(database: str) -> None:
    packages = [LockedPackage("bad", "1.0"), *(LockedPackage(f"good{n}", "1.0") for n in range(audit.BATCH))]
    assert audit.vulnerabilities(packages, database) == {"pkg:pypi/bad@1.0": ["GHSA-1", "GHSA-2"]}


def test_exit_codes(database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit.main(["--database", database]) == audit.NONE
    assert "0 with known vulnerabilities" in capsys.readouterr().out
    monkeypatch.setattr(audit, "locked_packages", lambda _: [LockedPackage("bad", "1.0")])
    assert audit.main(["--database", database]) == audit.FOUND
    assert "bad@1.0: GHSA-1, GHSA-2" in capsys.readouterr().out


def test_a_database_that_does_not_answer_is_no_clean_audit(
    database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit.main(["--database", f"http://127.0.0.1:{free_port()}"]) == audit.NOT_AUDITED
    assert "NOT AUDITED" in capsys.readouterr().err
    for reply in ({"results": [{}]}, {"error": "busy"}, [1], "text"):
        monkeypatch.setattr(OsvDatabase, "reply", reply)
        assert audit.main(["--database", database]) == audit.NOT_AUDITED
        assert "unexpected answer" in capsys.readouterr().err
