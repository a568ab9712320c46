"""`python -m supply_chain.sbom [--output FILE]`: a software bill of materials, CycloneDX 1.6 as JSON, from the lock files.

The same lock files give the same bytes: no time, and a serial number from the content.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import uuid
from pathlib import Path
from typing import Any

from supply_chain.lock_files import PROJECT, ROOT, LockedPackage, locked_packages
from trainkit.version import __version__


def bill_of_materials(packages: list[LockedPackage]) -> dict[str, Any]:
    """Return the document."""
    refs: dict[str, list[str]] = {}
    for package in packages:
        refs.setdefault(package.name, []).append(package.purl)
    project = f"pkg:pypi/{PROJECT}@{__version__}"
    refs[PROJECT] = [project]
    needs: dict[str, set[str]] = {ref: set() for found in refs.values() for ref in found}
    for package in packages:
        for parent in package.required_by:
            for ref in refs.get(parent, []):
                needs[ref].add(package.purl)
    content = {
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": project,
                "name": PROJECT,
                "version": __version__,
                "purl": project,
            }
        },
        "components": [_component(package) for package in packages],
        "dependencies": [{"ref": ref, "dependsOn": sorted(needs[ref])} for ref in sorted(needs)],
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).digest()
    serial = uuid.UUID(bytes=digest[:16], version=4)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        **content,
    }


def _component(package: LockedPackage) -> dict[str, Any]:
    properties = [{"name": "trainkit:lock-file", "value": name} for name in sorted(package.lock_files)]
    if package.marker:
        properties.append({"name": "trainkit:marker", "value": package.marker})
    return {
        "type": "library",
        "bom-ref": package.purl,
        "name": package.name,
        "version": package.version,
        "purl": package.purl,
        "hashes": [{"alg": "SHA-256", "content": digest} for digest in sorted(package.hashes)],
        "properties": properties,
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m supply_chain.sbom", description=__doc__)
    parser.add_argument("--output", type=Path, help="file to write; left out: the terminal")
    output: Path | None = parser.parse_args(arguments).output
    text = json.dumps(bill_of_materials(locked_packages(ROOT)), indent=1) + "\n"
    if output is None:
        sys.stdout.write(text)
    else:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
