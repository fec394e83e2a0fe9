"""Thousands of agents on SQS and DynamoDB, in simulated time: what they do, what it costs, and what limits them first.

    python bench/simulate.py [--agents N --slots N --seconds S] [--store NAME] [--table UNITS] [--queues N] ...

Without a size, a table of sizes. What an agent receives, holds and stores is decided by the agent's own policy functions
(`prefetch.py`, `backoff.py`'s `back_off`, `byte_budget.py`); the queue and the table have the limits that AWS publishes
(`aws_limits.py`). Agents come as their pods are started; some of them are simulated, each standing for as many that
started with it and do the same, so that ten thousand take seconds. Not simulated: the processor time of an agent.
"""

import argparse
import heapq
import itertools
import random
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

import aws_limits as aws
from htcgrid_aws import prices
from htcgrid_aws.sqs_queue import SIDE_BY_SIDE

from htcgrid.agent.byte_budget import ByteBudget
from htcgrid.agent.options import AgentOptions
from htcgrid.agent.policy import back_off, extension_interval
from htcgrid.agent.prefetch import Prefetch
from htcgrid.spi import Lease, Task

PLANE_BATCH = 512
POLL_SECONDS = 1.0
"""How long the agent has a source wait for tasks."""
MOST_FINISHED = 5_000
"""Results that wait to be stored; with more the agent receives nothing."""
LONG_SECONDS = 0.2
"""After a batch that took this long, the agent asks for what has waited whether it was cancelled."""
OLD_SECONDS = 0.02
WINDOW = 60.0
"""Seconds that are measured, or two tasks if they are longer, once all agents have started and had as long to settle."""
EVENTS = 400_000
"""About so many ends of tasks are simulated in a run."""
SPREAD = 0.2
"""Tasks take so much more or less than their mean."""


@dataclass(frozen=True)
class Store:
    """What storing a result takes: write units, how many results a request has, and the most units a second."""

    units: int = 1
    batch: int = aws.WRITE_BATCH
    most: int = aws.TABLE_QUOTA
    name: str = "write units of the table"
    charged_units: int = 1
    dollars: float = 0.0
    """For a million tasks, besides."""


S3_DOLLARS = prices.DOLLARS_PER_MILLION["s3 writes"] + prices.DOLLARS_PER_MILLION["s3 reads"]
STORES = {
    "dynamodb": Store(),
    # A row goes from pending to processing and to finished. The index gsi_session_index is keyed by session and status:
    # at each change an entry is removed and another is written, and all of a session lie in one partition. The other
    # index does the same with 32 keys. The agent reads the event from S3 and writes the answer there.
    "htc_grid": Store(4, 1, aws.PARTITION, "one session's partition of the index", 10, S3_DOLLARS),
}


@dataclass(frozen=True)
class Size:
    agents: int
    slots: int
    seconds: float
    store: str = "dynamodb"
    table: int = aws.TABLE_QUOTA
    """Write units a second that the table takes when the run begins; above the quota, what AWS has raised that to."""
    queues: int = 1
    """A part of the agents has each."""
    sessions: int = 1
    """Of htc_grid: each has partitions of its own."""
    pods_per_minute: int = 1_000
    lease_seconds: float = 30.0
    event_bytes: int = 1_000


@dataclass
class Counts:
    """Of all agents together."""

    requests: Counter[str] = field(default_factory=Counter)
    units: float = 0.0
    done: float = 0.0
    busy: float = 0.0
    limited: dict[str, float] = field(default_factory=dict)
    """When each limit was met first."""
    gave_up: float = 0.0
    in_flight: float = 0.0


class Table:
    """Write units, by the second; what is not taken is to be written again."""

    def __init__(self, first: float, most: float) -> None:
        self._rate, self._most = min(first, most), most
        self._tokens, self._at = self._rate, 0.0
        self._taken, self._since = 0.0, 0.0

    def take(self, units: float, now: float) -> float:
        """The part of these units that is taken."""
        if now - self._since >= aws.PEAK_SECONDS:
            peak = self._taken / (now - self._since)
            self._rate = min(self._most, max(self._rate, aws.PEAK_FACTOR * peak))
            self._taken, self._since = 0.0, now
        self._tokens = min(self._rate, self._tokens + (now - self._at) * self._rate)
        self._at = now
        taken = min(units, self._tokens)
        self._tokens -= taken
        self._taken += taken
        return taken / units


class Agent:
    """`weight` agents that have started together and do the same."""

    def __init__(self, grid: "Grid", weight: float) -> None:
        self.grid, self.weight, size = grid, weight, grid.size
        self.policy = Prefetch(size.slots, is_shared=True)
        self.bytes = ByteBudget(AgentOptions().prefetch_bytes)
        self.lease = Lease(Task("t", b"x" * size.event_bytes))
        self.since: list[float | None] = [None] * size.slots
        self.took = [0.0] * size.slots
        self.idle_since = [0.0] * size.slots
        self.waiting = self.finished = self.held = 0
        self.old_at = 0.0
        self.is_receiving = self.is_storing = False
        self.failures, self.failing_since = 0, 0.0

    def start(self) -> None:
        now = self.grid.now
        self.idle_since = [now] * len(self.since)
        self.extend()
        self.receive()

    # --- the thread that receives ---

    def receive(self) -> None:
        if not self.is_receiving and (wanted := self.wanted()) > 0:
            self.is_receiving = True
            most = 1 if self.grid.size.store == "htc_grid" else SIDE_BY_SIDE
            batches = max(1, min(wanted // aws.SQS_BATCH, most))
            self.grid.after(aws.SQS_SECONDS, self.received, min(wanted, batches * aws.SQS_BATCH), batches)

    def wanted(self) -> int:
        now = self.grid.now
        self.policy.ran([None if since is None else now - since for since in self.since])
        idle, size, unfinished = self.since.count(None), self.policy.size(), self.held - self.finished
        has_room = self.held == 0 or self.bytes.has_room(unfinished)
        if self.waiting >= max(size - size // 4, idle) or not has_room or self.finished > MOST_FINISHED:
            return 0
        return min(size + idle - self.waiting, self.bytes.room(unfinished))

    def received(self, wanted: int, batches: int = 1) -> None:
        self.grid.count("sqs.ReceiveMessage", batches * self.weight)
        if number := self.grid.lease(wanted, self.weight):
            self.policy.received(aws.SQS_SECONDS)
            self.take_in(number)
        else:
            self.policy.ran_dry()
            self.grid.polling.append((self.grid.now, self, wanted))

    def take_in(self, number: int) -> None:
        self.is_receiving = False
        if not self.waiting:
            self.old_at = self.grid.now + OLD_SECONDS
        self.waiting += number
        self.held += number
        self.bytes.hold([self.lease] * number)
        self.feed()
        self.receive()

    # --- the slots ---

    def feed(self) -> None:
        now, slots = self.grid.now, len(self.since)
        for slot in range(slots):
            if self.since[slot] is None and self.waiting:
                if self.took[slot]:
                    self.policy.waited(now - self.idle_since[slot])
                number = max(1, min(self.policy.batch, self.waiting // slots))
                self.waiting -= number
                looks = 0.0
                is_old = now > self.old_at and self.idle_since[slot] == now
                if is_old and (self.took[slot] > LONG_SECONDS or self.policy.is_worth(aws.SQS_SECONDS)):
                    looks = aws.SQS_SECONDS
                    self.grid.count("sqs.ChangeMessageVisibilityBatch", self.weight)
                seconds = number * self.grid.size.seconds * random.uniform(1 - SPREAD, 1 + SPREAD)
                self.since[slot], self.took[slot] = now + looks, seconds
                self.grid.after(looks + seconds, self.end, slot, number)

    def end(self, slot: int, number: int) -> None:
        seconds = self.took[slot]
        self.grid.counts.busy += self.grid.part_in_window(seconds) * self.weight
        self.since[slot], self.idle_since[slot] = None, self.grid.now
        self.finished += number
        self.policy.learn(seconds, number, PLANE_BATCH)
        self.feed()
        self.receive()
        if not self.is_storing:
            self.store_soon()

    # --- the thread that stores ---

    def store_soon(self) -> None:
        self.is_storing = self.finished > 0
        if self.is_storing:
            store = STORES[self.grid.size.store]
            linger = AgentOptions().linger if self.finished < store.batch and self.held > self.finished else 0.0
            self.grid.after(linger, self.put, 0, 0)

    def put(self, number: int, left: int) -> None:
        """A batch is put again until all of it is taken; those results that were taken are not written again."""
        store, now = STORES[self.grid.size.store], self.grid.now
        if not number:
            number = left = min(self.finished, store.batch)
        part = self.grid.table.take(left * store.units * self.weight, now)
        self.grid.count("dynamodb.Write", self.weight * max(1, store.units // 2))
        self.grid.charge(part * left * store.charged_units * self.weight)
        left -= int(left * part + random.random() * (part < 1))
        if not left:
            self.failures = 0
            self.grid.after(aws.DYNAMODB_SECONDS, self.ack, number)
            return
        self.grid.limited(store.name if self.grid.is_full_size else "a table that has not grown yet")
        self.failing_since = now if self.failures == 0 else self.failing_since
        if now - self.failing_since > AgentOptions().unavailable_limit:
            self.grid.give_up(self.weight)
            self.failing_since = now
        self.failures += 1
        self.grid.after(aws.DYNAMODB_SECONDS + back_off(self.failures, random.random()), self.put, number, left)

    def ack(self, number: int) -> None:
        requests = -(-number // aws.SQS_BATCH)
        self.grid.after(requests * aws.SQS_SECONDS, self.acked, number, requests)

    def acked(self, number: int, requests: int) -> None:
        self.finished -= number
        self.held -= number
        self.bytes.release([self.lease] * number)
        self.grid.count("sqs.DeleteMessageBatch", requests * self.weight)
        self.grid.done(number * self.weight)
        self.receive()
        self.store_soon()

    # --- the thread that extends ---

    def extend(self) -> None:
        self.grid.count("sqs.ChangeMessageVisibilityBatch", -(-self.held // aws.SQS_BATCH) * self.weight)
        self.grid.after(extension_interval(self.grid.size.lease_seconds), self.extend)


class Grid:
    """All agents, the queue and the table, event by event."""

    def __init__(self, size: Size) -> None:
        self.size, self.now = size, 0.0
        self.counts = Counts()
        self.polling: deque[tuple[float, Agent, int]] = deque()
        self.in_flight = 0.0
        self._events: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._order = itertools.count()
        most = STORES[size.store].most * size.sessions
        most = max(most, size.table) if size.store == "dynamodb" else most
        self.is_full_size = size.table >= most or size.store != "dynamodb"
        self.table = Table(size.table if size.store == "dynamodb" else most, most)
        started = size.agents / size.pods_per_minute * 60
        self.window = max(WINDOW, 2 * size.seconds)
        self.begin = started + self.window
        self.end = self.begin + self.window
        self.agents: list[Agent] = []
        self._is_in_window = False
        # A batch of short tasks ends as one.
        ends = size.slots * (self.window * 2 + started / 2) / max(size.seconds, 0.05)
        number = max(8, min(size.agents, int(EVENTS / ends), 400))
        for each in range(number):
            self.agents.append(Agent(self, size.agents / number))
            self.at(started * (each + random.random()) / number, self.agents[-1].start)

    def at(self, when: float, call: Callable[..., None], *arguments: object) -> None:
        heapq.heappush(self._events, (when, next(self._order), call, arguments))

    def after(self, seconds: float, call: Callable[..., None], *arguments: object) -> None:
        self.at(self.now + seconds, call, *arguments)

    def run(self) -> Counts:
        while self.now < self.end:
            self.now, _, call, arguments = heapq.heappop(self._events)
            self._is_in_window = self.begin <= self.now
            call(*arguments)
        for agent in self.agents:
            running = [self.now - since for since in agent.since if since is not None]
            self.counts.busy += sum(map(self.part_in_window, running)) * agent.weight
        self.counts.in_flight = self.in_flight
        return self.counts

    def lease(self, wanted: int, weight: float) -> int:
        """How many messages each of so many agents gets."""
        number = min(wanted, int((aws.MOST_IN_FLIGHT * self.size.queues - self.in_flight) / weight))
        if number < wanted:
            self.limited("messages in flight")
        self.in_flight += number * weight
        return number

    def done(self, number: float) -> None:
        """So many messages were deleted: who polls gets others."""
        self.in_flight -= number
        if self._is_in_window:
            self.counts.done += number
        while self.polling:
            since, agent, wanted = self.polling[0]
            if not (got := self.lease(wanted, agent.weight)):
                return
            self.polling.popleft()
            self.count("sqs.ReceiveMessage", agent.weight * int((self.now - since) / POLL_SECONDS))
            agent.take_in(got)

    # --- what is counted, in the window that is measured ---

    def count(self, request: str, number: float) -> None:
        if self._is_in_window:
            self.counts.requests[request] += number

    def charge(self, units: float) -> None:
        if self._is_in_window:
            self.counts.units += units

    def limited(self, what: str) -> None:
        self.counts.limited.setdefault(what, self.now)

    def give_up(self, agents: float) -> None:
        self.counts.gave_up += agents

    def part_in_window(self, seconds: float) -> float:
        """How much of so many seconds up to now lies in it."""
        return max(0.0, min(self.now, self.end) - max(self.now - seconds, self.begin))


@dataclass(frozen=True)
class Answer:
    """What one size came to, a second or a task."""

    tasks: float
    busy: float
    limit: str
    requests: float
    units: float
    dollars: float
    in_flight: float
    gave_up: float


def simulate(size: Size) -> Answer:
    grid = Grid(size)
    counts = grid.run()
    done = max(counts.done, 1.0)
    capacity = size.agents * size.slots * grid.window
    busy, stored = counts.busy / capacity, counts.done * size.seconds / capacity
    requests = sum(counts.requests.values())
    sqs = sum(number for name, number in counts.requests.items() if name.startswith("sqs"))
    dollars = prices.DOLLARS_PER_MILLION["sqs requests"] * sqs
    dollars += prices.DOLLARS_PER_MILLION["dynamodb write units"] * counts.units
    limit = "nothing: they are busy" if stored > 0.9 else "receiving and storing in an agent"
    if stored <= 0.9 and counts.limited:
        limit = ", then ".join(sorted(counts.limited, key=lambda name: counts.limited[name]))
    return Answer(
        tasks=counts.done / grid.window,
        busy=busy,
        limit=limit,
        requests=requests / grid.window,
        units=counts.units / grid.window,
        dollars=dollars / done + STORES[size.store].dollars,
        in_flight=counts.in_flight,
        gave_up=counts.gave_up,
    )


SIZES = (
    Size(100, 8, 0.1),
    Size(100, 8, 0.01),
    Size(1_000, 8, 1.0),
    Size(1_000, 8, 1.0, table=aws.NEW_TABLE),
    Size(1_000, 8, 0.1),
    Size(10_000, 1, 1.0),
    Size(10_000, 8, 1.0),
    Size(10_000, 8, 10.0),
    Size(10_000, 8, 10.0, table=aws.NEW_TABLE),
    Size(10_000, 16, 60.0),
    Size(10_000, 8, 60.0),
    Size(100, 8, 1.0, "htc_grid"),
    Size(1_000, 8, 10.0, "htc_grid"),
    Size(1_000, 8, 60.0, "htc_grid"),
)
HEAD = (
    f"{'agents':>7}{'slots':>6}{'task':>8}{'store':>10}{'table':>8}{'ramp':>9}{'tasks/s':>9}{'busy':>7}{'in flight':>11}"
    f"{'requests/s':>12}{'units/s':>9}{'$/million':>11}  limits first"
)


def row(size: Size, answer: Answer) -> str:
    ramp = size.agents / size.pods_per_minute
    gave_up = f"; {answer.gave_up:,.0f} times an agent gave up" if answer.gave_up else ""
    table = size.table if size.store == "dynamodb" else STORES[size.store].most * size.sessions
    return (
        f"{size.agents:>7,}{size.slots:>6}{size.seconds:>6g} s{size.store:>10}{table:>8,}{ramp:>5.1f} min"
        f"{answer.tasks:>9,.0f}{answer.busy:>7.0%}{answer.in_flight:>11,.0f}{answer.requests:>12,.0f}{answer.units:>9,.0f}"
        f"{answer.dollars:>11.2f}  {answer.limit}{gave_up}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int)
    parser.add_argument("--slots", type=int, default=8, help="environments of each agent")
    parser.add_argument("--seconds", type=float, default=1.0, help="of a task")
    parser.add_argument("--store", choices=STORES, default="dynamodb")
    parser.add_argument("--table", type=int, default=aws.TABLE_QUOTA, help="write units a second when the run begins")
    parser.add_argument("--queues", type=int, default=1, help="each for a part of the agents")
    parser.add_argument("--sessions", type=int, default=1, help="of htc_grid")
    parser.add_argument("--pods-per-minute", type=int, default=1_000)
    given = parser.parse_args()
    sizes = SIZES
    if given.agents:
        keys = vars(given)
        sizes = (Size(**keys),)
    print(HEAD)
    for size in sizes:
        random.seed(1)
        began = time.perf_counter()
        print(row(size, simulate(size)), f"  [{time.perf_counter() - began:.1f} s]" if given.agents else "", flush=True)


if __name__ == "__main__":
    main()
