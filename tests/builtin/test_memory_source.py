"""The source in memory, where its queue of ids and its tasks could come apart."""

from __future__ import annotations

from htcgrid.builtin.memory import MemorySource
from htcgrid.spi import Function, Task


def test_a_task_that_is_put_again_after_a_cancel_is_handed_out_once() -> None:
    source = MemorySource(MemorySource.Config(), Function())
    task = Task("a", b"1")
    source.put([task])
    source.cancel(task_ids=["a"])
    source.put([task])
    assert [lease.attempt for lease in source.receive(10, 0.0)] == [1]
    assert source.receive(10, 0.0) == ()


def test_a_task_that_is_put_again_after_a_cancel_keeps_to_its_own_delay() -> None:
    source = MemorySource(MemorySource.Config(), Function())
    task = Task("a", b"1")
    source.put([task, Task("b", b"2")])
    source.cancel(task_ids=["b"])
    source.nack(source.receive(10, 0.0))
    source.cancel(task_ids=["a"])
    source.put([task])
    source.nack(source.receive(1, 0.0), delay=60.0)
    assert source.receive(10, 0.0) == ()
