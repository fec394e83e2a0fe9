"""The agent of htcgrid on a plane, between a source and a sink in memory."""

from collections.abc import Callable, Mapping, Sequence

from htcgrid.agent.agent import Agent
from htcgrid.agent.statistics import Summary
from htcgrid.builtin.memory import MemorySink, MemorySource
from htcgrid.spi import Function, Invoker, Result, Task

from htcgrid_aws_lambda.invoker import AwsLambdaInvoker

Opener = Callable[..., AwsLambdaInvoker]
"""What the fixture `opened` gives: options of the plane in, an open plane out."""


def run(plane: Invoker, tasks: Sequence[Task]) -> tuple[Mapping[str, Result], Summary]:
    """Run all tasks to their results, by task id."""
    source = MemorySource(MemorySource.Config(), Function())
    sink = MemorySink(MemorySink.Config(), Function())
    source.put(tasks)
    with source, sink:
        summary = Agent(source, plane, sink).run()
        return sink.get([task.id for task in tasks]), summary
