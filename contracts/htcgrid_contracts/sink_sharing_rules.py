"""A sink that other agents and readers use at the same time."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing

from htcgrid.spi import ResultSink, ResultStore, Unavailable

from htcgrid_contracts.common import eventually, in_threads, not_asked
from htcgrid_contracts.reading_rules import ReadingRules, varied


class SinkSharingRules(ReadingRules):
    """`writer` is another agent's sink of the same place."""

    def test_stats_are_the_same_for_every_agent(self, sink: ResultSink, writer: Callable[[], ResultSink]) -> None:
        """`stats` must be the same for every agent and program on the same store, such as `htcgrid status`.
        Read: spi.ResultSink.stats."""
        if type(sink).stats is ResultSink.stats:
            not_asked("`stats` is the default: it cannot tell what it holds")
        with sink:
            sink.put([varied(0)])
            other = writer()
            other.put([varied(1)])
            for each in (sink, other, writer()):
                stats = each.stats()
                assert stats.stored in {2, None} or stats.note, (
                    f"two agents stored a result each, and the `stats` of one of them says {stats.stored}"
                )
                assert stats.failures is None or sum(stats.failures.values()) == 1, (
                    f"one of two results is a failure, and `stats` says {stats.failures}"
                )

    def test_agents_that_put_the_same_tasks_at_once_leave_one_result_each(
        self, sink: ResultSink, writer: Callable[[], ResultSink]
    ) -> None:
        """When several agents put the same tasks at the same time, each task must have one result. A task whose lease
        was lost may end at two agents. Read: spi.ResultSink.put."""
        with sink:
            size = min(sink.max_batch, 5)
            put = [varied(3 * number) for number in range(12 * size)]
            agents = [sink, writer(), writer(), writer()]
            together = threading.Barrier(len(agents))

            def work(agent: ResultSink) -> None:
                together.wait(30 * self.wait_factor)
                for start in range(0, len(put), size):
                    for left in reversed(range(20)):
                        try:
                            agent.put(put[start : start + size])
                            break
                        except Unavailable:  # as the agent does: the same results again
                            if not left:
                                raise
                            time.sleep(0.05)

            in_threads([lambda agent=agent: work(agent) for agent in agents], 60 * self.wait_factor)  # type: ignore[misc]
            self._stored(sink, put)

    def test_who_reads_holds_up_no_put(self, sink: ResultSink) -> None:
        """`put` must work while another reads: a user may look at one page of results for a long time.
        Read: spi.ResultSink.scan, spi.ResultSink.failed."""
        readings: Mapping[str, Callable[[ResultSink], Iterator[object]]] = {
            name: call
            for name, is_there, call in (
                ("scan", sink.keeps_order, lambda reader: iter(reader.scan())),
                ("failed", sink.lists_failures, lambda reader: iter(reader.failed())),
            )
            if is_there
        }
        if not isinstance(sink, ResultStore) or not readings:
            not_asked("it cannot be read beside a run")
        with sink:
            for number in (1, 4):  # failures
                sink.put([varied(number)])
            for name, reading in readings.items():
                reader = self.again(sink)
                reader.open_to_read()
                with closing(reader):
                    for each, who in ((reader, "another"), (sink, "the same sink")):
                        results = reading(each)
                        next(results, None)
                        began = time.monotonic()
                        in_threads([lambda: sink.put([varied(0)])], 20 * self.wait_factor)
                        took = time.monotonic() - began
                        list(results)
                        assert took < 10 * self.wait_factor, f"a put took {took:.0f} s while {who} was within `{name}`"

    def test_who_waits_is_told_while_it_waits(self, sink: ResultSink, writer: Callable[[], ResultSink]) -> None:
        """`wait_for_more` must return soon after a result was stored, and not before.
        Read: spi.ResultSink.wait_for_more."""
        with sink:
            if sink.wait_for_more(0.0) is None:
                not_asked("`wait_for_more` is the default: this sink cannot tell")
            other = writer()
            # What opening them has changed may be told as well.
            eventually(lambda: not sink.wait_for_more(0.2), 5 * self.wait_factor, "an end of what it reports")
            wait = 1.0 * self.wait_factor
            for _ in range(3):  # a busy machine may be late once
                began = time.monotonic()
                assert not sink.wait_for_more(wait), "nothing was stored, and it says that something was"
                took = time.monotonic() - began
                assert took > wait / 2, f"nothing was stored, and wait_for_more({wait:g}) returned after {took:.2f} s"
                if took < 3 * wait:
                    break
            assert took < 3 * wait, f"nothing was stored, and wait_for_more({wait:g}) returned after {took:.1f} s"

            def put() -> bool:
                time.sleep(0.5)
                other.put([varied(0)])
                return True

            thread = threading.Thread(target=put, daemon=True)
            thread.start()
            began = time.monotonic()
            told = sink.wait_for_more(15 * self.wait_factor)
            took = time.monotonic() - began
            thread.join()
            assert told, "another agent stored a result while it waited, and it says that nothing was stored"
            assert took < 0.5 + 5 * self.wait_factor, (
                f"another agent stored a result after 0.5 s, and whoever waits was told after {took:.1f} s"
            )
