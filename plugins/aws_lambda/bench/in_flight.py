"""What a call in flight costs the agent: 300 calls of 1 s at once from one agent, the service in another process.

Usage: python bench/in_flight.py [calls in flight] [rounds] [seconds a call]

Prints the busy share (handler time over the time that the places were open, ramp included and at the full limit),
resident memory and processor time a call in flight. The service is `tests/fake_lambda.py`, which answers
every call after the seconds asked for, so that what is measured is this side alone.
"""

import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from htcgrid.agent.agent import Agent
from htcgrid.builtin.memory import MemorySink, MemorySource
from htcgrid.spi import Function, Lease, Outcome, Task

from htcgrid_aws_lambda.invoker import AwsLambdaInvoker

SERVICE = Path(__file__).parent.parent / "tests" / "fake_lambda.py"


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def processor_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class Timed(AwsLambdaInvoker):
    """Notes when each call began and ended, in Unix seconds."""

    spans: ClassVar[list[tuple[float, float]]] = []

    def invoke(self, batch: Sequence[Lease], timeout: float) -> Iterator[Outcome]:
        for found in super().invoke(batch, timeout):
            assert found.failure is None
            self.spans.append((found.started, time.time()))
            yield found


def measure(plane: Timed, in_flight: int, rounds: int, seconds: float) -> None:
    source = MemorySource(MemorySource.Config(), plane.function)
    sink = MemorySink(MemorySink.Config(), plane.function)
    event = json.dumps({"seconds": seconds}).encode()
    source.put([Task(f"t-{number}", event) for number in range(in_flight * rounds)])
    agent = threading.Thread(target=Agent(source, plane, sink).run)
    memory, processor, started = resident_mb(), processor_seconds(), time.time()
    agent.start()
    agent.join(max(2.0, seconds * 3))
    peak = resident_mb()
    agent.join()
    wall, processor = time.time() - started, processor_seconds() - processor
    spans = plane.spans
    calls = len(spans)
    last_start = max(start for start, _ in spans)
    # At the full limit: after the ramp, until the queue has run dry.
    full_from = started + 2.0
    steady = last_start - full_from
    busy = sum(max(0.0, min(start + seconds, last_start) - max(start, full_from)) for start, _ in spans)
    late = sorted(end - start - seconds for start, end in spans)
    print(f"{calls} calls of {seconds:g} s, {in_flight} at once, in {wall:.1f} s")
    print(f"busy share, whole run with its ramp and end: {calls * seconds / (wall * in_flight):.1%}")
    if steady > 0:
        print(f"busy share at the full limit ({steady:.1f} s):    {busy / (steady * in_flight):.1%}")
    median, slowest = late[calls // 2] * 1e3, late[calls * 99 // 100] * 1e3
    print(f"beyond the handler's time: median {median:.0f} ms, 99 % {slowest:.0f} ms")
    each = (peak - memory) / in_flight * 1e3
    print(f"resident: {memory:.0f} MB open and idle, {peak:.0f} MB in flight: {each:.0f} KB a call in flight")
    print(f"processor: {processor / calls * 1e3:.2f} ms a call, {processor / wall:.0%} of one core")


def main() -> None:
    in_flight, rounds, seconds = (float(text) for text in (*sys.argv[1:], *("300", "12", "1")[len(sys.argv) - 1 :]))
    service = subprocess.Popen([sys.executable, str(SERVICE)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert service.stdout is not None
    os.environ |= {"AWS_ACCESS_KEY_ID": "AKIAMADEUP", "AWS_SECRET_ACCESS_KEY": "made-up"}
    config = Timed.Config(
        region="us-east-1", endpoint_url=service.stdout.readline().strip(), concurrency=int(in_flight)
    )
    try:
        with Timed(config, Function(handler="bench.handler")) as plane:
            measure(plane, int(in_flight), int(rounds), seconds)
    finally:
        service.communicate()


if __name__ == "__main__":
    main()
