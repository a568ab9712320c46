"""`python -m trainkit_client.cli`."""

from __future__ import annotations

from trainkit_client.cli.root import main

main()
