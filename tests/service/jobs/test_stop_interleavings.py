"""A client's stop against a rule's: whatever comes first, one end, a model, and the reason that is true."""

from __future__ import annotations

import hashlib
import random
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from service.context import Context
from service.database import make_engine, reading
from service.datasets import intake
from service.datasets.receive import Received
from service.datasets.service import DatasetMetadata, register
from service.doorbell import Doorbell
from service.job_watcher import JobWatcher
from service.jobs import service as jobs
from service.jobs.states import ENDED
from service.keys.service import authenticate, create_key
from service.principal import Principal
from service.sessions import session_factory
from service.settings import Settings
from service.storage import Storage
from tests.support.api import FACTS
from tests.support.interleavings import Play
from tests.support.transactions import transact

pytestmark = pytest.mark.postgresql

LONGEST = 400
Make = Callable[[random.Random], Play]


def players(url: str, folder: Path) -> Make:
    """A service without HTTP on that migrated database; makes plays of one new job each."""
    settings = Settings(url, "memory://", str(folder / "storage"), folder, folder / "scratch")
    engine = make_engine(url)
    if url.startswith("sqlite"):  # these databases need not outlive a power cut
        event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF"))
    sessions = session_factory(engine)
    context = Context(
        settings, engine, sessions, Storage(settings.storage_url), Doorbell("memory://"), JobWatcher(sessions)
    )
    with sessions.begin() as session:
        key = create_key(session, "default", "test")
    with reading(sessions) as session:
        identity = authenticate(session, key)
    assert identity is not None
    who = identity.alone()
    dataset = ready_dataset(context, who)

    def make(rng: random.Random) -> Play:
        document = {"dataset": dataset, "model": {"kind": "linear"}, "resources": {"max_attempts": 1}}
        return Play(context, who, rng, transact(context, jobs.create, context, who, document, None)[0].id)

    return make


def ready_dataset(context: Context, who: Principal) -> str:
    part = context.storage.new_part()
    part.write_bytes(b"bytes")
    identifier = register(
        context, who, Received(part, hashlib.sha256(b"bytes").hexdigest(), 5), DatasetMetadata("d")
    ).id
    with context.sessions.begin() as session:
        claimed = intake.claim(session, "tests", 30)
        assert claimed is not None
        intake.ready(session, claimed.claim, FACTS, {}, "prepared/x")
    return identifier


def play(game: Play) -> None:
    """Whose turn it is the seed decides; now and then a worker falls silent and another takes over."""
    rng, client = game.rng, game.client()
    workers: list[Iterator[None]] = []
    losing = rng.random() < 0.3
    wishes = True
    for _ in range(LONGEST):
        state = game.state()
        if state in ENDED and not wishes and not workers:
            break
        turn = rng.random()
        if losing and turn < 0.08:
            game.lose_the_worker()
        elif wishes and turn < 0.4:
            wishes = next(client, "over") != "over"
        elif state == "queued" and (not workers or turn < 0.6):
            workers.append(game.worker())
        elif state == "paused" and not wishes:
            transact(game.context, jobs.resume, game.context, game.who, game.job)
        elif workers:
            worker = rng.choice(workers)
            if next(worker, "over") == "over":
                workers.remove(worker)
    for _ in game.stop():
        pass  # long after the end
    game.promises_hold()


def play_many(make: Make, seeds: range) -> dict[str, int]:
    ends: dict[str, int] = {}
    for seed in seeds:
        game = make(random.Random(seed))
        try:
            play(game)
        except Exception as error:
            raise AssertionError(f"schedule {seed}: {error}") from error
        job = game.row()
        for what in (f"{job.state} {job.stop_reason}", *(["refused"] if game.refused else [])):
            ends[what] = ends.get(what, 0) + 1
    return ends


@pytest.fixture
def make(migrated_sqlite: Path, tmp_path: Path) -> Make:
    shutil.copyfile(migrated_sqlite, tmp_path / "t.db")
    return players(f"sqlite:///{tmp_path}/t.db", tmp_path)


def test_sixty_schedules(make: Make) -> None:
    ends = play_many(make, range(60))
    assert ends.keys() == {"succeeded early_stop", "stopped client_stop", "cancelled client_stop", "refused"}
    assert min(ends.values()) >= 2, ends


@pytest.mark.soak
@pytest.mark.parametrize("chunk", range(20))
def test_ten_thousand_schedules(make: Make, chunk: int) -> None:
    begun = time.monotonic()
    ends = play_many(make, range(1000 + 500 * chunk, 1500 + 500 * chunk))
    print(f"{500 / (time.monotonic() - begun):.0f} schedules/s, {ends}")


def test_on_postgresql_client_and_worker_at_once(
    new_postgres_database: Any, migrated_postgres: str, tmp_path: Path
) -> None:
    make = players(new_postgres_database(template=migrated_postgres), tmp_path)
    reasons: list[str | None] = []
    for seed in range(40):
        game = make(random.Random(seed))
        failures: list[BaseException] = []

        def run(turns: Iterator[None], pauses: random.Random, first: threading.Event | None, failures: Any) -> None:
            try:
                if first is not None:
                    first.wait(30)
                time.sleep(pauses.choice((0.0, 0.1)) * pauses.random())
                for _ in turns:
                    time.sleep(pauses.random() * 0.01)
            except BaseException as error:
                failures.append(error)

        # every other time the client comes when the rule has fired: its wishes run against the finish alone
        first = game.fired if seed % 2 else None
        sides = (
            game.stop(alone=False),
            game.ask(jobs.pause, game.who, game.job),
            game.stop(alone=False),
            game.worker(),
        )
        threads = [
            threading.Thread(target=run, args=(side, random.Random(4 * seed + n), None if n == 3 else first, failures))
            for n, side in enumerate(sides)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        while (state := game.row().state) not in ENDED:
            if state == "paused":
                transact(game.context, jobs.resume, game.context, game.who, game.job)
            for _ in game.worker():
                pass
        game.promises_hold(ordered=False)
        reasons.append(game.row().stop_reason)
    ends = Counter(reasons)
    assert ends["early_stop"] + ends["client_stop"] == 40
    assert min(ends["early_stop"], ends["client_stop"]) >= 5, ends
    game.context.engine.dispose()
