from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from random import Random

import pytest
from program_end import output_at_end
from pydantic import ValidationError

from htcgrid.builtin.sqlite_sink import SqliteSink
from htcgrid.builtin.sqlite_source import SqliteSource
from htcgrid.builtin.sqlite_store import SqliteFile
from htcgrid.spi import Function, HtcgridError, Outcome, Rejected, Result, Task, Unavailable

NOBODY = 65534

OPENS = """
import sys
from pathlib import Path
from htcgrid.builtin.sqlite_store import SqliteFile
print("begins", flush=True)
SqliteFile(Path(sys.argv[1])).open()
"""


def source_at(path: Path) -> SqliteSource:
    return SqliteSource(SqliteSource.Config(path=path), Function())


def sink_at(path: Path) -> SqliteSink:
    return SqliteSink(SqliteSink.Config(path=path), Function())


@pytest.fixture(params=[source_at, sink_at], ids=["source", "sink"])
def plugin(request: pytest.FixtureRequest, tmp_path: Path) -> SqliteSource | SqliteSink:
    made = request.param(tmp_path / "grid.db")
    assert isinstance(made, SqliteSource | SqliteSink)
    return made


@pytest.fixture
def public_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@contextmanager
def without_rights() -> Iterator[None]:
    """As root all files can be written: be nobody for a while."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_making_one_touches_nothing_and_closing_is_quiet(plugin: SqliteSource | SqliteSink, tmp_path: Path) -> None:
    plugin.close()
    assert not list(tmp_path.iterdir())
    plugin.open()
    plugin.close()
    plugin.close()
    assert [path.name for path in tmp_path.iterdir()] == ["grid.db"]


def test_what_was_stored_is_there_when_opened_again(tmp_path: Path) -> None:
    with source_at(tmp_path / "grid.db") as source, sink_at(tmp_path / "grid.db") as sink:
        source.put([Task("t", b"1")])
        sink.put([Result(Task("u", b"1"), Outcome("u", b"2"))])
    with source_at(tmp_path / "grid.db") as source, sink_at(tmp_path / "grid.db") as sink:
        assert source.receive(1, 0)[0].task == Task("t", b"1")
        assert sink.get(["u"])["u"].outcome.payload == b"2"


def test_an_unknown_key_or_a_lease_of_nothing_is_refused() -> None:
    with pytest.raises(ValidationError, match="paht"):
        SqliteSource.Config.model_validate({"paht": "grid.db"})
    with pytest.raises(ValidationError, match="lease_seconds"):
        SqliteSource.Config.model_validate({"path": "grid.db", "lease_seconds": 0})


def test_the_lease_of_the_config_is_the_sources(tmp_path: Path) -> None:
    config = SqliteSource.Config(path=tmp_path / "grid.db", lease_seconds=7)
    assert SqliteSource(config, Function()).lease_seconds == 7


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match=r"there is no folder .*/missing; make it, or correct `path`"):
        source_at(tmp_path / "missing" / "grid.db").open()


def test_a_folder_in_place_of_a_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match=r"this is a folder; name a file in it"):
        sink_at(tmp_path).open()


def test_a_file_that_is_no_database_is_left_alone(plugin: SqliteSource | SqliteSink, tmp_path: Path) -> None:
    path = tmp_path / "grid.db"
    path.write_bytes(b'{"id": "t1"}\n' * 1000)
    with pytest.raises(Rejected, match=r"grid\.db: this is not a SQLite database; it was left as it is"):
        plugin.open()
    plugin.close()
    assert path.read_bytes() == b'{"id": "t1"}\n' * 1000


def test_another_programs_database_is_left_alone(plugin: SqliteSource | SqliteSink, tmp_path: Path) -> None:
    path = tmp_path / "grid.db"
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE cookies (name TEXT)")
    before = path.read_bytes()
    with pytest.raises(Rejected, match=r"not one of htcgrid's .* Name another file in `path`"):
        plugin.open()
    plugin.close()
    assert path.read_bytes() == before


def test_a_newer_schema_is_refused_with_both_versions(plugin: SqliteSource | SqliteSink, tmp_path: Path) -> None:
    plugin.open()
    plugin.close()
    with closing(sqlite3.connect(tmp_path / "grid.db")) as newer:
        newer.execute("PRAGMA user_version = 9")
    with pytest.raises(Rejected, match=r"another version of htcgrid .schema version 9, this one knows 2"):
        plugin.open()
    plugin.close()


def test_a_file_that_cannot_be_read_is_named(public_folder: Path) -> None:
    path = public_folder / "grid.db"
    with source_at(path):
        pass
    path.chmod(0)
    with without_rights(), pytest.raises(Rejected, match=r"grid\.db: the file cannot be opened. This user must"):
        source_at(path).open()


def test_a_file_that_cannot_be_written_is_named(public_folder: Path) -> None:
    path = public_folder / "grid.db"
    with source_at(path):
        pass
    path.chmod(0o444)
    public_folder.chmod(0o555)
    with without_rights():
        source = source_at(path)
        with pytest.raises(Rejected, match=r"grid\.db: the file cannot be (opened|written)\. This user must"):
            source.open()
        source.close()


def test_a_folder_that_cannot_be_written_is_named(public_folder: Path) -> None:
    public_folder.chmod(0o555)
    with without_rights(), pytest.raises(Rejected, match="its folder, as SQLite keeps two more files"):
        sink_at(public_folder / "grid.db").open()


def test_a_file_that_another_process_keeps_locked_is_unavailable(
    plugin: SqliteSource | SqliteSink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("htcgrid.builtin.sqlite_store.BUSY_SECONDS", 0.05)
    with plugin, closing(sqlite3.connect(tmp_path / "grid.db", isolation_level=None)) as greedy:
        greedy.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable, match=r"kept the file locked for 0.05 s; this call did nothing"):
            plugin.put([])
        greedy.execute("ROLLBACK")
        plugin.put([])


@pytest.mark.timing
def test_closing_does_not_wait_for_a_file_that_another_process_keeps_locked(tmp_path: Path) -> None:
    source = source_at(tmp_path / "grid.db")
    source.open()
    source.receive(1, 0)
    met: list[HtcgridError] = []

    def put() -> None:
        try:
            source.put([Task("t", b"1")])
        except HtcgridError as error:
            met.append(error)

    with closing(sqlite3.connect(tmp_path / "grid.db", isolation_level=None)) as greedy:
        greedy.execute("BEGIN IMMEDIATE")
        waiting = threading.Thread(target=put)
        waiting.start()
        while source._file._lock.acquire(blocking=False):  # until the other thread waits, which it does with the lock
            source._file._lock.release()
            time.sleep(0.01)
        began = time.monotonic()
        source.close()
        waiting.join()
        assert time.monotonic() - began < 5.0
    assert [type(error) for error in met] == [Unavailable]


@pytest.mark.timing
def test_ctrl_c_is_heard_while_another_process_keeps_the_file_locked(tmp_path: Path) -> None:
    with source_at(tmp_path / "grid.db"):
        pass
    with closing(sqlite3.connect(tmp_path / "grid.db", isolation_level=None)) as greedy:
        greedy.execute("BEGIN IMMEDIATE")
        waiting = subprocess.Popen(
            [sys.executable, "-c", OPENS, str(tmp_path / "grid.db")],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert waiting.stdout is not None
        waiting.stdout.readline()
        time.sleep(0.2)
        began = time.monotonic()
        waiting.send_signal(signal.SIGINT)
        output_at_end(waiting)
        assert time.monotonic() - began < 5.0
    assert waiting.returncode == -signal.SIGINT


def test_a_read_that_ctrl_c_interrupted_as_it_began_may_end_after_close(tmp_path: Path) -> None:
    """A signal between the start of a context manager and its body leaves the manager to be collected at any time."""
    file = SqliteFile(tmp_path / "grid.db")
    file.open()
    interrupted = file.reading()
    interrupted.__enter__()
    file.close()
    interrupted.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    file.open()
    with file.reading() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    file.close()


def test_a_file_removed_while_in_use_is_told_before_anything_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "grid.db"
    with source_at(path) as source, sink_at(path) as sink:
        path.unlink()
        with pytest.raises(Rejected, match="removed or replaced while it was in use"):
            sink.put([Result(Task("t", b"1"), Outcome("t", b"2"))])
        with source_at(path), pytest.raises(Rejected, match="removed or replaced while it was in use"):
            source.receive(1, 0)


def test_a_damaged_file_is_told_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "grid.db"
    with source_at(path) as source:
        source.put([Task(f"t{number}", bytes(500)) for number in range(1000)])
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(Rejected, match=r'grid\.db: the database is damaged.*"\.recover"'), source_at(path) as source:
        source.receive(1000, 0)


def test_the_log_is_written_back_when_it_has_grown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("htcgrid.builtin.sqlite_store.LOG_BYTES", 100_000)
    log = tmp_path / "grid.db-wal"
    sizes = []
    with sink_at(tmp_path / "grid.db") as sink:
        for number in range(40):
            sink.put([Result(Task(f"t{number}", b""), Outcome(f"t{number}", bytes(20_000)))])
            sizes.append(log.stat().st_size)
        assert max(sizes) < 300_000
        assert len(sink.get([f"t{number}" for number in range(40)])) == 40


def test_a_link_to_the_file_is_as_good_as_its_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("htcgrid.builtin.sqlite_store.LOG_BYTES", 100_000)
    (tmp_path / "elsewhere").mkdir()
    (link := tmp_path / "grid.db").symlink_to(tmp_path / "elsewhere" / "real.db")
    log = tmp_path / "elsewhere" / "real.db-wal"
    with source_at(link) as source:
        source.put([Task("long", bytes(1_000_000))])
        source.put([Task("next", b"1")])
        assert log.stat().st_size < 100_000, "it is written back when it has grown"
    assert not caplog.records, "changes of other processes are noticed"


def test_a_long_read_by_another_program_holds_up_one_transaction_and_not_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("htcgrid.builtin.sqlite_store.LOG_BYTES", 200_000)
    monkeypatch.setattr("htcgrid.builtin.sqlite_store.BUSY_SECONDS", 0.05)
    path = tmp_path / "grid.db"
    tries: list[str] = []
    with sink_at(path) as sink, closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM results").fetchone()
        with sink._file.reading() as connection:
            connection.set_trace_callback(lambda text: tries.append(text) if "checkpoint" in text else None)
        for number in range(20):
            sink.put([Result(Task(f"t{number}", b""), Outcome(f"t{number}", bytes(20_000)))])
        assert 1 <= len(tries) <= 3
        reader.execute("COMMIT")
        for number in range(20, 60):
            sink.put([Result(Task(f"t{number}", b""), Outcome(f"t{number}", bytes(20_000)))])
        assert path.with_name("grid.db-wal").stat().st_size < 700_000
        assert len(list(sink.scan())) == 60


def test_a_path_with_a_nul_is_refused() -> None:
    for make in (source_at, sink_at):
        with pytest.raises(ValidationError, match="NUL"):
            make(Path("a\0b"))


@pytest.mark.parametrize("path", ["/dev/null", "/dev/full"])
def test_a_path_that_can_be_no_file_is_refused(path: str) -> None:
    for made in (source_at(Path(path)), sink_at(Path(path))):
        with pytest.raises(Rejected, match="`path`"), made:
            pass


@pytest.mark.parametrize("table", ["queue", "tasks", "agents"])
def test_a_queue_without_one_of_its_tables_is_told_as_damaged(tmp_path: Path, table: str) -> None:
    path = tmp_path / "grid.db"
    with source_at(path):
        pass
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"DROP TABLE {table}")
    with pytest.raises(Rejected, match="the database is damaged"), source_at(path) as source:  # noqa: PT012 - whichever is first
        source.put([Task("t", b"1")])
        source.receive(1, 0)


@pytest.mark.parametrize("seed", [0, 1, 2, 25, 64, 69, 123, 129, 179, 185, 218])
def test_damaged_bytes_anywhere_are_never_called_a_bug(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "grid.db"
    with source_at(path) as source, sink_at(path) as sink:
        source.put([Task(f"t{number}", b"1", {"session_id": "s"}) for number in range(50)])
        sink.put([Result(Task(f"t{number}", b"1"), Outcome(f"t{number}", b"1")) for number in range(50)])
    dice, data = Random(seed), bytearray(path.read_bytes())
    for _ in range(40):
        data[dice.randrange(100, len(data))] ^= 0xFF
    path.write_bytes(data)

    def use(source: SqliteSource, sink: SqliteSink) -> None:
        source.stats()
        source.ack(source.receive(100, 0))
        list(sink.scan())
        sink.stats()

    with suppress(Rejected, Unavailable), source_at(path) as source, sink_at(path) as sink:
        use(source, sink)


@pytest.mark.parametrize("harm", ["failure = 'nonsense'", "attributes = '{'", "attributes = CAST(x'ff' AS TEXT)"])
def test_a_damaged_result_is_told_with_what_to_do(tmp_path: Path, harm: str) -> None:
    path = tmp_path / "grid.db"
    with sink_at(path) as sink:
        sink.put([Result(Task("t", b"1"), Outcome("t", b"1"))])
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(f"UPDATE results SET {harm}")
        with pytest.raises(Rejected, match="damaged"):
            list(sink.scan())
        with pytest.raises(Rejected, match="damaged"):
            sink.get(["t"])
