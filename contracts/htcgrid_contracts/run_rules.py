"""What a sink that keeps what ran must do: `spi.ResultSink.add_run`."""

import json
import time
import uuid
from functools import partial

from htcgrid.spi import ResultSink

from htcgrid_contracts.common import PluginContract, in_threads, not_asked

_MANY = 130
"""More than a page of 100 entries, or of 1 MB."""


class RunRules(PluginContract):
    """Asked of sinks with `add_run`."""

    def test_what_ran_can_be_read_back(self, sink: ResultSink) -> None:
        """`runs` must return what `add_run` was given. A resumed run adds to it, and `htcgrid report` reads it.
        Read: spi.ResultSink.add_run, spi.ResultSink.runs."""
        documents = [_document(), _document()]
        with sink:
            self._must_keep_runs(sink)
            for document in documents:
                sink.add_run(document)
                time.sleep(1.1)  # a place may keep times to the second
        with self.again(sink) as reader:
            kept = [each for each in reader.runs() if each in documents]
        assert len(kept) == len(documents), (
            f"2 runs were added, and `runs` gives {len(kept)} of them as they were added"
        )
        assert kept == documents, "2 runs were added one after the other, and `runs` gives the second one first"

    def test_agents_may_add_what_ran_at_the_same_time(self, sink: ResultSink) -> None:
        """Several agents must be able to call `add_run` at the same time: each agent of a grid adds its run.
        Read: spi.ResultSink.add_run."""
        documents = [_document() for _ in range(16)]
        with sink:
            self._must_keep_runs(sink)
            in_threads([partial(sink.add_run, document) for document in documents], 60 * self.wait_factor)
            kept = [each for each in sink.runs() if each in documents]
        assert sorted(kept) == sorted(documents), (
            f"16 runs were added side by side, and `runs` gives {len(set(kept))} of them"
        )

    def test_every_run_of_many_can_be_read_back(self, sink: ResultSink) -> None:
        """`runs` must return every run, also where there are more than a page of the store: a report is made of all.
        Read: spi.ResultSink.runs."""
        documents = [_document() for _ in range(_MANY)]
        with sink:
            self._must_keep_runs(sink)
            in_threads(
                [lambda some=documents[start::4]: [*map(sink.add_run, some)] for start in range(4)],  # type: ignore[misc]
                60 * self.wait_factor,
            )
            kept = list(sink.runs())
        wrong = {type(each).__name__ for each in kept if type(each) is not bytes}
        assert not wrong, f"`runs` gives {', '.join(wrong)} in place of bytes"
        assert sorted(kept) == sorted(documents), (
            f"{_MANY} runs of {sum(map(len, documents))} bytes in all were added, and `runs` gives {len(kept)}"
        )

    def test_a_run_is_not_a_result(self, sink: ResultSink) -> None:
        """What `add_run` stores must not be counted or listed as a result. Read: spi.ResultSink.add_run."""
        with sink:
            self._must_keep_runs(sink)
            before = sink.stats()
            sink.add_run(_document())
            after = sink.stats()
            assert after.stored == before.stored or after.note, (
                f"a run was added, and `stats` says {after.stored} results after {before.stored}"
            )
            if sink.lists_failures:
                assert list(sink.failed()) == [], "a run was added, and `failed` lists it"

    def _must_keep_runs(self, sink: ResultSink) -> None:
        if not sink.keeps_runs:
            not_asked("the sink does not keep what ran")


def _document() -> bytes:
    return json.dumps(
        {"command": "run", "note": f"über {uuid.uuid4()}", "long": "a few kB" * 1000}, ensure_ascii=False
    ).encode()
