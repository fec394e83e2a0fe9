"""Drive the agent's prefetch policy through mixed loads, in simulated time, and say how far from ideal it comes.

    python bench/prefetch.py [--agents N] [--slots N]

Several agents share one queue. What they receive, hold and return is decided by the functions of
`htcgrid/agent/prefetch.py`; the clock, the queue and the tasks are simulated, so an hour of tasks takes a second.
Beside it, in the same run: agents that return nothing, and agents that hold nothing.
"""

import argparse
import heapq
import itertools
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from htcgrid.agent.prefetch import DRY_SECONDS, RETURNS, Prefetch

RECEIVE_SECONDS = {"sqlite": 0.002, "sqs": 0.010}
MOST_RECEIVED = {"sqlite": 1000, "sqs": 20}
FOUND_EMPTY = {"sqlite": DRY_SECONDS, "sqs": 1.0}
"""SQS waits whole seconds."""
PLANE_BATCH = 512
FREED_SECONDS = 0.05
"""The process plane frees what is behind a task that runs for so long."""


@dataclass
class Task:
    seconds: float
    priority: int = 0
    arrives: float = 0.0
    session: str = "s"
    began: float = -1.0
    attempts: int = 0


@dataclass
class Load:
    name: str
    tasks: Sequence[Task]
    cancels: tuple[float, str] | None = None
    """When which session is cancelled."""


@dataclass
class Policy:
    """Ours, and the two extremes beside it."""

    returns: bool = True
    holds: bool = True


@dataclass
class Slot:
    batch: deque[Task] = field(default_factory=deque)
    since: float | None = None
    idle_since: float = 0.0


class Agent:
    def __init__(self, slots: int, policy: Policy, receive_seconds: float) -> None:
        self.slots = [Slot() for _ in range(slots)]
        self.policy = policy
        self.prefetch = Prefetch(slots, is_shared=True)
        self.receive_seconds = receive_seconds
        self.waiting: deque[Task] = deque()
        self.is_receiving = False
        self.dry_since: float | None = None

    def look(self, now: float) -> None:
        self.prefetch.ran([None if slot.since is None else now - slot.since for slot in self.slots])

    def wanted(self, now: float) -> int:
        self.look(now)
        idle = sum(slot.since is None for slot in self.slots)
        held = self.prefetch.size() if self.policy.holds else 0
        low = max(held - held // 4, idle)
        return held + idle - len(self.waiting) if len(self.waiting) < low else 0

    def surplus(self, now: float) -> list[Task]:
        if not self.policy.returns:
            return []
        self.look(now)
        most = self.prefetch.most()
        waiting = list(self.waiting)
        leaving = [task for task in waiting[most:] if task.attempts <= RETURNS]
        self.waiting = deque([*waiting[:most], *(task for task in waiting[most:] if task.attempts > RETURNS)])
        return leaving


class Simulation:
    """One load on some agents, event by event."""

    def __init__(self, load: Load, agents: int, slots: int, source: str, policy: Policy) -> None:
        self.now = 0.0
        self.source = source
        self.agents = [Agent(slots, policy, RECEIVE_SECONDS[source]) for _ in range(agents)]
        self.queue: list[tuple[int, int, Task]] = []
        self.order = itertools.count()
        self.events: list[tuple[float, int, str, tuple]] = []
        self.cancelled: set[str] = set()
        self.late_starts = self.returns = 0
        self.done = 0.0
        for task in load.tasks:
            self.at(task.arrives, "arrive", task)
        if load.cancels:
            self.at(load.cancels[0], "cancel", load.cancels[1])

    def at(self, when: float, what: str, *arguments: object) -> None:
        heapq.heappush(self.events, (when, next(self.order), what, arguments))

    def run(self) -> None:
        for agent in self.agents:
            self.at(0.0, "look", agent)
        while self.events:
            self.now, _, what, arguments = heapq.heappop(self.events)
            getattr(self, f"on_{what}")(*arguments)

    def put(self, task: Task) -> None:
        heapq.heappush(self.queue, (-task.priority, next(self.order), task))

    def on_arrive(self, task: Task) -> None:
        self.put(task)
        for agent in self.agents:
            self.receive(agent)

    def on_cancel(self, session: str) -> None:
        self.cancelled.add(session)
        self.queue = [entry for entry in self.queue if entry[2].session != session]
        heapq.heapify(self.queue)

    def receive(self, agent: Agent) -> None:
        if not self.queue:
            agent.dry_since = self.now if agent.dry_since is None else agent.dry_since
        elif agent.dry_since is not None:
            if self.now - agent.dry_since > FOUND_EMPTY[self.source]:
                agent.prefetch.ran_dry()
            agent.dry_since = None
        wanted = min(agent.wanted(self.now), MOST_RECEIVED[self.source])
        if wanted > 0 and self.queue and not agent.is_receiving:
            agent.is_receiving = True
            self.at(self.now + agent.receive_seconds, "received", agent, wanted)

    def on_received(self, agent: Agent, wanted: int) -> None:
        agent.is_receiving = False
        agent.prefetch.received(agent.receive_seconds)
        while wanted > 0 and self.queue:
            wanted -= 1
            task = heapq.heappop(self.queue)[2]
            task.attempts += 1
            agent.waiting.append(task)
        agent.waiting = deque(sorted(agent.waiting, key=lambda task: -task.priority))
        self.feed(agent)

    def feed(self, agent: Agent) -> None:
        for slot in agent.slots:
            if slot.since is None and agent.waiting:
                agent.prefetch.waited(self.now - slot.idle_since)
                share = max(1, min(agent.prefetch.batch, len(agent.waiting) // len(agent.slots)))
                taken = [agent.waiting.popleft() for _ in range(share)]
                # What has waited is asked for; leases of what was cancelled are lost.
                slot.batch.extend(
                    task for task in taken if task.session not in self.cancelled or agent.prefetch.batch > 1
                )
                self.begin(agent, slot)
        self.receive(agent)

    def begin(self, agent: Agent, slot: Slot) -> None:
        if not slot.batch:
            slot.since, slot.idle_since = None, self.now
            return
        task = slot.batch[0]
        slot.since = task.began = self.now
        self.late_starts += task.session in self.cancelled
        self.at(self.now + task.seconds, "end", agent, slot)
        if task.seconds > FREED_SECONDS:
            self.at(self.now + FREED_SECONDS, "free", agent, slot, task)

    def on_free(self, agent: Agent, slot: Slot, task: Task) -> None:
        while len(slot.batch) > 1:
            agent.waiting.appendleft(slot.batch.pop())
        self.feed(agent)

    def on_end(self, agent: Agent, slot: Slot) -> None:
        task = slot.batch.popleft()
        self.done = self.now
        agent.prefetch.learn(task.seconds, 1, PLANE_BATCH)
        self.begin(agent, slot)
        self.feed(agent)

    def on_look(self, agent: Agent) -> None:
        leaving = agent.surplus(self.now)
        self.returns += len(leaving)
        for task in leaving:
            if task.session not in self.cancelled:
                self.put(task)
        if leaving:
            for other in self.agents:
                self.receive(other)
        if self.queue or self.events:
            self.at(self.now + Prefetch.look_seconds, "look", agent)
            if all(event[2] == "look" for event in self.events):
                self.events = []
                if any(each.waiting for each in self.agents):
                    raise AssertionError("tasks wait, and nothing runs")


def loads() -> list[Load]:
    chance = random.Random(7)
    mixed = [Task(5.0 if chance.random() < 0.02 else 0.02) for _ in range(3000)]
    urgent = [Task(1.0) for _ in range(60)] + [Task(1.0, priority=9, arrives=7.3 + each) for each in range(8)]
    halves = [Task(0.5, session="a") for _ in range(40)] + [Task(0.5, session="b") for _ in range(40)]
    return [
        Load("2,000 of 1 ms, then 60 of 5 s", [*(Task(0.001) for _ in range(2000)), *(Task(5.0) for _ in range(60))]),
        Load("2,000 of 1 ms, then 20 of 1 s", [*(Task(0.001) for _ in range(2000)), *(Task(1.0) for _ in range(20))]),
        Load("3,000 of 20 ms, 1 in 50 of 5 s", mixed),
        Load("5 s and 10 ms in turn, 100 of each", [Task(each) for _ in range(100) for each in (5.0, 0.01)]),
        Load("20,000 of 1 ms", [Task(0.001) for _ in range(20_000)]),
        Load("60 of 1 s, 8 urgent ones meanwhile", urgent),
        Load("80 of 0.5 s, half cancelled after 4.2 s", halves, cancels=(4.2, "a")),
    ]


def ideal_seconds(load: Load, slots: int) -> float:
    """As if one agent with all slots had no queue."""
    ends = [0.0] * slots
    cancel_at, session = load.cancels or (float("inf"), "")
    for task in load.tasks:
        begin = max(heapq.heappop(ends), task.arrives)
        is_cancelled = task.session == session and begin >= cancel_at
        heapq.heappush(ends, begin + (0.0 if is_cancelled else task.seconds))
    return max(ends)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, default=2)
    parser.add_argument("--slots", type=int, default=1, help="of each agent")
    options = parser.parse_args()
    policies = {"ours": Policy(), "none returned": Policy(returns=False), "none held": Policy(holds=False)}
    print(f"{'time against the ideal split':<44}{'':8}" + "".join(f"{name:>16}" for name in policies))
    for source in RECEIVE_SECONDS:
        for load_number in range(len(loads())):
            figures, said = [], ""
            for policy in policies.values():
                load = loads()[load_number]
                simulation = Simulation(load, options.agents, options.slots, source, policy)
                simulation.run()
                figures.append(simulation.done / ideal_seconds(load, options.agents * options.slots))
                if policy is policies["ours"]:
                    said = told(simulation, load)
            print(f"{load.name:<44}{source:8}" + "".join(f"{figure:>14.2f} x" for figure in figures) + said)


def told(simulation: Simulation, load: Load) -> str:
    urgent = [task.began - task.arrives for task in load.tasks if task.priority]
    words = [f"{simulation.returns} returned"]
    if urgent:
        words.append(f"an urgent one begins within {max(urgent):.2f} s")
    if load.cancels:
        words.append(f"{simulation.late_starts} of the cancelled begin")
    return "   " + ", ".join(words)


if __name__ == "__main__":
    main()
