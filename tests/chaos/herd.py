"""Agents on one queue, killed and stopped while they work; and the count of the results."""

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

HTCGRID = Path(sys.executable).with_name("htcgrid")

FUNCTION = """\
[function]
handler = "work.handler"
timeout = 60
[planes.local]
plugin = "process"
workers = 1
[agent]
unavailable_limit = 120
"""

SQLITE = """\
[source]
plugin = "sqlite"
path = "queue.db"
lease_seconds = 3
[sink]
plugin = "sqlite"
path = "results.db"
"""

# One write of a short line at the end of a file is whole, whoever else writes.
WORK = """\
import os, time

NOTES = os.open({notes!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def handler(event, context):
    os.write(NOTES, b"%d\\n" % event["n"])
    time.sleep({seconds})
    return event["n"] * event["n"]
"""


class Herd:
    """So many agents at any time, on the queue of a project that it writes into `folder`."""

    def __init__(
        self, folder: Path, size: int, task_seconds: float, queue: str = SQLITE, environment: Mapping[str, str] = {}
    ) -> None:
        self.folder = folder
        self.killed = self.stopped = 0
        self._chance = random.Random(20)
        self._size = size
        self._environment = dict(environment)
        self._agents: list[subprocess.Popen[bytes]] = []
        (folder / "htcgrid.toml").write_text(FUNCTION + queue)
        (folder / "work.py").write_text(WORK.format(notes=str(folder / "ran"), seconds=task_seconds))
        (folder / "ran").touch()

    def submit(self, numbers: range, session: str = "s") -> None:
        """A task for each number; the ids are s_1, s_2 and so on."""
        (self.folder / "tasks.jsonl").write_text("".join(json.dumps({"n": n}) + "\n" for n in numbers))
        self.command("submit", "tasks.jsonl", "--session", session)

    def command(self, *arguments: str) -> str:
        """What another command of htcgrid prints."""
        environment = self._environment or None
        done = subprocess.run(
            [HTCGRID, *arguments], cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self) -> None:
        for _ in range(self._size):
            self._add()

    def kill_one(self) -> None:
        """`kill -9`, and another in its place."""
        agent = self._agents.pop(self._chance.randrange(len(self._agents)))
        agent.kill()
        agent.wait()
        self.killed += 1
        self._add()

    def stop_one(self, seconds: float) -> None:
        """Suspend an agent for so long; it goes on as if nothing had been."""
        agent = self._chance.choice(self._agents)
        agent.send_signal(signal.SIGSTOP)
        time.sleep(seconds)  # the length of the suspension is the test's matter
        agent.send_signal(signal.SIGCONT)
        self.stopped += 1

    def torment(self, is_over: Callable[[], bool], *, every: float, kills: int, stops: int, seconds: float) -> None:
        """Kill one every so often, `kills` times at the most, and `stops` times suspend one, until it is over."""
        deadline = time.monotonic() + seconds
        next_kill = time.monotonic() + every
        while not is_over():
            assert time.monotonic() < deadline, f"not over in {seconds:g} s; killed {self.killed}"
            self._assert_alive()
            if self.killed < kills and time.monotonic() >= next_kill:
                self.kill_one()
                next_kill = time.monotonic() + every
                if self.stopped < stops and self.killed >= 2:
                    self.stop_one(7.0)  # the lease is 3 s or 5 s
            time.sleep(0.05)

    def end(self) -> None:
        """SIGTERM; all must end well. One that is still starting has nothing to end, and ends or dies of the signal."""
        for agent in self._agents:
            agent.terminate()
        assert {agent.wait(90) for agent in self._agents} <= {0, 143, -signal.SIGTERM}, self.said()

    def put_down(self) -> None:
        """Whatever happened."""
        for agent in self._agents:
            agent.send_signal(signal.SIGCONT)
            agent.kill()
            agent.wait()

    def runs(self) -> Counter[int]:
        """How often a handler began each task."""
        return Counter(map(int, (self.folder / "ran").read_text().split()))

    def said(self) -> str:
        return (self.folder / "agents.log").read_text()[-4000:]

    def report(self, where: str, tasks: int, began: float) -> str:
        runs = self.runs()
        more = sum(count > 1 for count in runs.values())
        return (
            f"{where}: {tasks:,} tasks in {time.monotonic() - began:.0f} s, {self.killed} agents killed, {self.stopped} "
            f"suspended; {more} tasks ran more than once ({max(runs.values())} times at most), {len(runs):,} at least once"
        )

    def _add(self) -> None:
        with (self.folder / "agents.log").open("ab") as log:
            run: list[str | Path] = [HTCGRID, "run", "--quiet"]
            self._agents.append(
                subprocess.Popen(run, cwd=self.folder, env=self._environment or None, stdout=log, stderr=log)
            )

    def _assert_alive(self) -> None:
        ended = [agent.returncode for agent in self._agents if agent.poll() is not None]
        assert not ended, f"an agent ended by itself with {ended}: {self.said()}"
