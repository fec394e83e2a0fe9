"""The chaos of tests/chaos, small enough for every day."""

from pathlib import Path

import pytest
from herd import Herd

from htcgrid.builtin.sqlite_sink import SqliteSink
from htcgrid.builtin.sqlite_source import SqliteSource
from htcgrid.spi import Function, States

TASKS = 2000


@pytest.mark.slow
def test_every_task_has_one_result_though_three_agents_are_killed(tmp_path: Path) -> None:
    herd = Herd(tmp_path, size=2, task_seconds=0.003)
    herd.submit(range(TASKS))
    with (
        SqliteSource(SqliteSource.Config(path=tmp_path / "queue.db"), Function()) as source,
        SqliteSink(SqliteSink.Config(path=tmp_path / "results.db"), Function()) as sink,
    ):
        try:
            herd.start()
            herd.torment(
                lambda: source.stats(brief=True).states == States(waiting=0, leased=0, dead=0) and herd.killed == 3,
                every=1.0,
                kills=3,
                stops=0,
                seconds=100,
            )
            herd.end()
        finally:
            herd.put_down()
        results = [result for _, result in sink.scan()]
    assert sorted((result.task.id, result.outcome.payload) for result in results) == sorted(
        (f"s_{n + 1}", b"%d" % (n * n)) for n in range(TASKS)
    )
    assert set(herd.runs()) == set(range(TASKS))
