"""Load shedding: few requests are worked on at once; others wait for a moment, in fair turns, or get a 503.

Under more load than a process can serve, everybody would else wait longer and longer, and memory would grow with the
number of those who wait. What is refused here has cost little: no route, no thread and no connection.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter, OrderedDict, deque
from contextvars import ContextVar
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.early_refusals import EarlyRefusals
from service.errors import HttpProblem, answer
from service.principal import Principal

IN_WORK = 4
"""Requests in work at once, in one process. More threads would not be faster: Python runs one at a time, SQLite has one
writer. Each would only take turns away from the event loop, which is one thread among them: with twelve, refusals and
health checks took three times as long."""
SLOW_SECONDS = 0.25
"""A request that is in work for longer (an export, a plot) leaves its place to others ..."""
SLOW = 8
"""... as long as there are no more than so many of these."""
WAITING = 128
"""Requests that wait for their turn, at most. Fewer where so many would not have it within WAIT_SECONDS."""
WAIT_SECONDS = 0.7
"""Longest wait: within a second everybody is in work or knows."""
MAX_RETRY_SECONDS = 10.0
"""Longest time that a refusal asks for: not all who are refused come again, so the estimate is too long rather than short."""
SMOOTHING = 0.1
"""Weight of the newest time between two turns in their mean."""
BODY_SECONDS = 0.25
"""A client whose body takes longer leaves its place: who sends slowly must not keep others waiting."""
ALWAYS = frozenset({"/healthz", "/readyz", "/metrics"})
"""Operators and their machines are answered under any load. `/metrics` has a limit of its own."""
ALWAYS_BELOW = "/ui"
"""Static files."""


@dataclass(eq=False, slots=True)
class Place:
    """A request's place among those in work."""

    turns: Turns
    project: str
    admitted: asyncio.Future[bool] | None = None
    in_work: bool = False
    is_slow: bool = False
    timer: asyncio.TimerHandle | None = None

    def leave(self) -> None:
        """Give the place to the next one. Idempotent."""
        if self.in_work:
            self.in_work = False
            self.turns.leave(self)


PLACE: ContextVar[Place | None] = ContextVar("place", default=None)


def leave_work() -> None:
    """Give the request's place to others: from here on it waits for a client or a worker, and costs next to nothing."""
    place = PLACE.get()
    if place is not None:
        place.leave()


class Turns:
    """The places of one event loop, and who waits for one: each project in its order, the projects in turn."""

    def __init__(
        self,
        limit: int,
        waiting: int,
        slow: int = SLOW,
        slow_seconds: float = SLOW_SECONDS,
        wait_seconds: float = WAIT_SECONDS,
    ) -> None:
        self._limit, self._waiting_limit, self._wait_seconds = limit, waiting, wait_seconds
        self._most_slow, self._slow_seconds = slow, slow_seconds
        self._in_work = self._slow = self._waiting = 0
        self._queues: OrderedDict[str, deque[Place]] = OrderedDict()
        self._overdue: OrderedDict[Place, None] = OrderedDict()
        """Requests that take long and still have their places, because so many do."""
        self._coming: Counter[str] = Counter()
        """Requests by project whose heads were read in this turn of the event loop; they enter in the next."""
        self._turn_seconds = self._turn_at = 0.0
        """Mean time between two turns while others wait, and when the last turn was; 0 where nobody waited then."""
        self._served_at = 0.0
        """When all who were refused would have had their turns."""

    @property
    def _most_waiting(self) -> int:
        """How many may wait now: no more than will have their turns in time, or they would wait for a refusal."""
        if not self._turn_seconds:
            return self._waiting_limit
        return min(self._waiting_limit, max(self._limit, int(self._wait_seconds / self._turn_seconds)))

    def retry_seconds(self) -> int:
        """Return after how many seconds a request that is refused now should be sent again.

        Each refused one is given the next turn behind those that were refused before it, so that they come back one
        after the other and not all at once.
        """
        now = asyncio.get_running_loop().time()
        behind = max(self._served_at, now + self._waiting * self._turn_seconds)
        self._served_at = min(behind + self._turn_seconds, now + MAX_RETRY_SECONDS)
        return max(1, math.ceil(self._served_at - now))

    async def enter(self, project: str) -> Place | None:
        """Wait for a place; None when there is none in time, or too many wait already."""
        place = Place(self, project)
        if self._in_work < self._limit and not self._waiting:
            self._admit(place)
            return place
        if self.refuses(project):
            return None
        while self._waiting and self._waiting >= self._most_waiting:
            self._turn_out(self._longest())
        place.admitted = asyncio.get_running_loop().create_future()
        self._queues.setdefault(project, deque()).append(place)
        self._waiting += 1
        try:
            async with asyncio.timeout(self._wait_seconds):
                await asyncio.shield(place.admitted)
        except TimeoutError:
            pass
        except BaseException:
            self._forget(place)
            place.leave()
            raise
        self._forget(place)
        return place if place.in_work else None

    def refuses(self, project: str) -> bool:
        """Whether a request of the project would be refused at once: too many wait, and others have no more waiting."""
        coming = self._coming.total()
        if self._waiting + coming < self._most_waiting:
            return False
        longest = len(self._queues.get(self._longest(), ())) - coming  # each may turn one of these out
        return longest <= len(self._queues.get(project, ())) + self._coming[project] + 1

    def expect(self, project: str) -> None:
        """Count a request that will enter in the next turn of the event loop.

        One turn reads many heads. Without this all of them would be let through for the one place that is free, and
        then be refused at the cost of a whole request.
        """
        if not self._coming:
            asyncio.get_running_loop().call_soon(self._coming.clear)
        self._coming[project] += 1

    def leave(self, place: Place) -> None:
        """A place is free."""
        if place.timer is not None:
            place.timer.cancel()
            # its context is that of the request which let this one in: kept, each would keep the one before it
            place.timer = None
        self._overdue.pop(place, None)
        if place.is_slow:
            self._slow -= 1
            self._let_slow_ones_aside()
        else:
            self._in_work -= 1
        self._admit_next()

    def _admit_next(self) -> None:
        """Whose turn is it?"""
        self._measure()
        while self._in_work < self._limit and self._queues:
            project, queue = self._queues.popitem(last=False)
            place = queue.popleft()
            if queue:
                self._queues[project] = queue  # behind the other projects
            self._waiting -= 1
            self._admit(place)

    def _measure(self) -> None:
        """Take the time since the turn before, if somebody has waited for this one since then."""
        now = asyncio.get_running_loop().time()
        free = min(self._limit - self._in_work, self._waiting)
        if free > 0 and self._turn_at:
            each = min((now - self._turn_at) / free, self._wait_seconds)
            self._turn_seconds += SMOOTHING * (each - self._turn_seconds) if self._turn_seconds else each
        if free > 0 or not self._waiting:
            self._turn_at = now if self._waiting > free else 0.0

    def _admit(self, place: Place) -> None:
        self._in_work += 1
        place.in_work = True
        place.timer = asyncio.get_running_loop().call_later(self._slow_seconds, self._on_slow, place)
        _answer(place, admitted=True)

    def _on_slow(self, place: Place) -> None:
        """Let the next one in beside a request that takes long."""
        self._overdue[place] = None
        self._let_slow_ones_aside()
        self._admit_next()

    def _let_slow_ones_aside(self) -> None:
        while self._overdue and self._slow < self._most_slow:
            place, _ = self._overdue.popitem(last=False)
            place.is_slow = True
            self._slow += 1
            self._in_work -= 1

    def _longest(self) -> str:
        """The project with most waiting requests."""
        return max(self._queues, key=lambda name: len(self._queues[name]), default="")

    def _turn_out(self, project: str) -> None:
        """Refuse the last one that waits of a project."""
        last = self._queues[project][-1]
        self._forget(last)
        _answer(last, admitted=False)

    def _forget(self, place: Place) -> None:
        """Take a request out of the queue, if it is still in it."""
        queue = self._queues.get(place.project)
        if queue is None or place not in queue:
            return
        queue.remove(place)
        self._waiting -= 1
        if not queue:
            del self._queues[place.project]


def _answer(place: Place, *, admitted: bool) -> None:
    if place.admitted is not None and not place.admitted.done():
        place.admitted.set_result(admitted)


class LoadShedding:
    """The middleware. A request has its place until its response begins, or until it calls `leave_work`."""

    def __init__(
        self,
        app: ASGIApp,
        early: EarlyRefusals | None = None,
        limit: int = IN_WORK,
        waiting: int = WAITING,
        wait_seconds: float = WAIT_SECONDS,
        slow: int = SLOW,
        slow_seconds: float = SLOW_SECONDS,
    ) -> None:
        self.app, self._limits = app, (limit, waiting, slow, slow_seconds, wait_seconds)
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, Turns] = WeakKeyDictionary()
        if early is not None:
            early.add(self._early_problem)

    def _turns(self) -> Turns:
        loop = asyncio.get_running_loop()
        found = self._loops.get(loop)
        if found is None:
            found = self._loops[loop] = Turns(*self._limits)
        return found

    def _early_problem(self, principal: Principal, path: str, query: bytes) -> HttpProblem | None:
        if is_always_answered(path):
            return None
        turns = self._turns()
        if turns.refuses(principal.project_id):
            return overloaded(turns.retry_seconds())
        turns.expect(principal.project_id)
        return None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or is_always_answered(scope["path"]):
            await self.app(scope, receive, send)
            return
        principal, turns = scope["state"].get("principal"), self._turns()
        place = await turns.enter(principal.project_id if principal else "")
        if place is None:
            await answer(overloaded(turns.retry_seconds()), scope)(scope, receive, send)
            return

        async def receive_in_time() -> Message:
            if not place.in_work:
                return await receive()
            message = asyncio.ensure_future(receive())
            try:
                await asyncio.wait({message}, timeout=BODY_SECONDS)
                if not message.done():
                    place.leave()
                return await message
            finally:
                message.cancel()

        async def send_and_leave(message: Message) -> None:
            if message["type"] == "http.response.start":
                place.leave()  # a slow reader keeps nobody waiting
            await send(message)

        token = PLACE.set(place)
        try:
            await self.app(scope, receive_in_time, send_and_leave)
        finally:
            PLACE.reset(token)
            place.leave()


def is_always_answered(path: str) -> bool:
    """Whether requests of that path pass under any load."""
    return path in ALWAYS or path.startswith(ALWAYS_BELOW)


def overloaded(retry_seconds: int) -> HttpProblem:
    """503 with the time after which another try is worth it."""
    detail = "The service has more requests than it can serve now; this one was not begun. "
    detail += f"Send it again in {retry_seconds} s."
    return HttpProblem(503, "overloaded", detail, headers={"Retry-After": str(retry_seconds)})
