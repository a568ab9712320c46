"""`python -m service.audit verify|export`: check the audit log of the database, or of an export; print its entries."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from service.audit import repository
from service.audit.service import BrokenChainError, Verified, export, seal, verify, verify_export
from service.database import make_engine, reading
from service.sessions import session_factory
from service.settings import Settings

HEAD = re.compile(r"(\d{1,18}):([0-9a-f]{64})")
BROKEN = 1
WRONG_USE = 2


def main() -> int:
    parser = argparse.ArgumentParser(prog="trainkit audit", description=__doc__)
    parser.add_argument("action", choices=["verify", "export"])
    parser.add_argument("--head", help="SEQ:HASH of an entry, as `verify` printed it earlier")
    parser.add_argument("--file", type=Path, help="an export to verify instead of the database")
    parser.add_argument("--after", type=int, default=0, help="export only entries after this seq")
    arguments = parser.parse_args()
    kept = HEAD.fullmatch(arguments.head) if arguments.head else None
    if arguments.head and kept is None:
        print(f"--head is {arguments.head[:100]!r}; it is SEQ:HASH, as `verify` prints it", file=sys.stderr)
        return WRONG_USE
    sessions = session_factory(make_engine(Settings.from_env().database_url))
    if arguments.action == "export":
        seal(sessions)
        for lines in export(sessions, None, arguments.after):
            sys.stdout.write(lines)
        return 0
    try:
        if arguments.file is not None:
            with arguments.file.open(encoding="utf-8") as lines_of_file:
                result = verify_export(lines_of_file)
        else:
            seal(sessions)
            with reading(sessions) as session:
                result = verify(session, (int(kept[1]), kept[2]) if kept else None)
                waiting, _ = repository.pending_count(session)
    except BrokenChainError as broken:
        print(f"BROKEN at seq {broken.seq}: {broken}", file=sys.stderr)
        return BROKEN
    except (OSError, ValueError) as error:
        print(f"{arguments.file}: {error}", file=sys.stderr)
        return WRONG_USE
    print(describe(result))
    if arguments.file is None and waiting:
        print(f"{waiting} entries wait to be sealed.")
    return 0


def describe(result: Verified) -> str:
    """Return what was verified, in words, and the head to keep elsewhere."""
    if result.head is None:
        return "The audit log is empty."
    seq, hash = result.head
    if result.first_seq is None:
        return f"Unbroken: no entries after {seq}. Head: {seq}:{hash}"
    return f"Unbroken: {result.entries} entries, seq {result.first_seq} to {seq}. Head: {seq}:{hash}"


if __name__ == "__main__":
    sys.exit(main())
