from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import select
import threading
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from htcgrid.builtin.jsonl_lines import LINE_BYTES
from htcgrid.builtin.jsonl_source import JsonlSource
from htcgrid.spi import Function, Lease, Rejected


def source_at(path: object, **options: object) -> JsonlSource:
    return JsonlSource(JsonlSource.Config.model_validate({"path": path, **options}), Function())


def drained(source: JsonlSource, most: int = 1000) -> list[Lease]:
    found: list[Lease] = []
    while not source.exhausted:
        found.extend(source.receive(most, 0.01))
    return found


def ids(leases: Sequence[Lease]) -> list[str]:
    return [lease.task.id for lease in leases]


def write(path: Path, *lines: str | bytes, end: bytes = b"\n") -> Path:
    data = end.join(line.encode() if isinstance(line, str) else line for line in lines) + end
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.fixture(params=["tasks.jsonl", "tasks.jsonl.gz"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / str(request.param)


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The writing end of what the source reads as standard input."""
    reading, writing = os.pipe()
    with os.fdopen(reading) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        yield writing


# --- lines -------------------------------------------------------------------------------------------


def test_each_line_is_an_event_and_its_number_the_id(path: Path) -> None:
    write(path, '{"a": 1}', "2", '"drei"', "null")
    with source_at(path) as source:
        found = drained(source)
    assert [(lease.task.id, lease.task.payload, lease.attempt, lease.invalid) for lease in found] == [
        ("1", b'{"a": 1}', 1, ""),
        ("2", b"2", 1, ""),
        ("3", b'"drei"', 1, ""),
        ("4", b"null", 1, ""),
    ]
    assert {lease.task.attributes["session_id"] for lease in found} == {path.name}


@pytest.mark.slow
@given(st.lists(st.integers() | st.text() | st.none() | st.dictionaries(st.text(), st.floats()), max_size=30))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_every_document_comes_out_as_it_went_in(tmp_path: Path, documents: list[object]) -> None:
    lines = [json.dumps(document, ensure_ascii=False) for document in documents]
    write(tmp_path / "t.jsonl", *lines)
    with source_at(tmp_path / "t.jsonl") as source:
        assert [lease.task.payload.decode() for lease in drained(source, 7)] == lines


def test_blank_lines_are_passed_over_and_counted(path: Path) -> None:
    write(path, "1", "", "   ", "\t", "2")
    with source_at(path) as source:
        assert ids(drained(source)) == ["1", "5"]


def test_windows_line_ends_and_a_last_line_without_end_are_lines_too(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(b'{"a": 1}\r\n2\r\n3')
    with source_at(path) as source:
        assert [lease.task.payload for lease in drained(source)] == [b'{"a": 1}', b"2", b"3"]


def test_an_empty_file_is_exhausted_and_holds_nothing(path: Path) -> None:
    path.write_bytes(gzip.compress(b"") if path.suffix == ".gz" else b"")
    with source_at(path) as source:
        assert source.receive(10, 0) == []
        assert source.exhausted


def test_no_more_is_lent_than_asked_for_or_than_fits_a_batch(path: Path) -> None:
    write(path, *map(str, range(5000)))
    with source_at(path) as source:
        assert len(source.receive(3, 0)) == 3
        assert len(source.receive(100_000, 0)) <= source.max_batch
        assert len(drained(source)) + 3 + source.max_batch == 5000


@pytest.mark.parametrize(
    "line",
    [
        b"{not json}",
        b'{"a": 1',
        b"1 2",
        b'"\xff"',
        b"'single'",
        b"{},",
        b"[" * 100_000,
        b'\xef\xbb\xbf{"a": 1}',
        "{}".encode("utf-16-le"),
        b"\x00",
        b'"\xed\xa0\x80"',
    ],
)
@pytest.mark.parametrize("id_field", ["", "id"])
def test_a_line_that_is_not_json_is_named_by_number_and_the_others_are_tasks(
    path: Path, line: bytes, id_field: str
) -> None:
    write(path, '{"id": "a"}', line, '{"id": "b"}')
    with source_at(path, id_field=id_field) as source:
        first, bad, last = drained(source)
    assert first.invalid == last.invalid == ""
    assert f"{path}, line 2: this is not JSON: " in bad.invalid
    assert bad.invalid.endswith("Each line must be one JSON document.")


def test_what_only_pythons_own_parser_takes_is_a_task(path: Path) -> None:
    lines = ['"\\ud800"', "NaN", "-Infinity", "[" * 500 + "]" * 500, "1" * 3000]
    write(path, *lines)
    with source_at(path) as source:
        assert [(lease.task.payload.decode(), lease.invalid) for lease in drained(source)] == [(t, "") for t in lines]


# --- id_field ----------------------------------------------------------------------------------------


def test_a_field_of_the_event_can_be_the_id(path: Path) -> None:
    write(path, '{"id": "a"}', '{"id": 7}', '{"id": "é"}')
    with source_at(path, id_field="id") as source:
        assert ids(drained(source)) == ["a", "7", "é"]


def test_an_id_that_stands_twice_is_told_with_both_lines_and_the_first_runs(path: Path) -> None:
    write(path, '{"id": "a"}', '{"id": 7}', '{"id": "a", "x": 2}', '{"id": "7"}', '{"id": "b"}')
    with source_at(path, id_field="id") as source:
        found = drained(source)
    assert [bool(lease.invalid) for lease in found] == [False, False, True, True, False]
    assert "line 3: line 1 has the id 'a' already. Each id may be used once." in found[2].invalid
    assert "line 4: line 2 has the id '7' already. Each id may be used once." in found[3].invalid
    assert len(set(ids(found))) == 5


@pytest.mark.parametrize(
    "event", ["{}", '{"id": null}', '{"id": ""}', '{"id": true}', '{"id": [1]}', '{"id": 1.5}', '["id"]', "7"]
)
def test_an_event_without_an_id_is_told(path: Path, event: str) -> None:
    write(path, event, '{"id": "a"}')
    with source_at(path, id_field="id") as source:
        bad, good = drained(source)
    assert "line 1: id_field = 'id', but the event has no text or number under that key" in bad.invalid
    assert (good.task.id, good.invalid) == ("a", "")


@pytest.mark.parametrize("event", ['{"id": "\\ud800"}', '{"id": ' + "9" * 5000 + "}"], ids=["surrogate", "digits"])
def test_an_id_that_cannot_be_one_is_told(path: Path, event: str) -> None:
    write(path, event, '{"id": "a"}')
    with source_at(path, id_field="id") as source:
        bad, good = drained(source)
    assert "line 1" in bad.invalid
    assert (good.task.id, good.invalid) == ("a", "")


# --- leases ------------------------------------------------------------------------------------------


def test_what_is_returned_is_leased_again_as_the_next_attempt(path: Path) -> None:
    write(path, "1", "2")
    with source_at(path) as source:
        first, second = source.receive(10, 0)
        source.ack([first])
        source.nack([second])
        assert not source.exhausted
        [again] = source.receive(10, 5)
        assert (again.task, again.attempt) == (second.task, 2)
        source.ack([again])
        assert source.exhausted


def test_what_is_returned_with_a_delay_waits_for_it(path: Path) -> None:
    write(path, "1")
    with source_at(path) as source:
        source.nack(source.receive(1, 0), 0.2)
        began = time.monotonic()
        assert source.receive(1, 0) == []
        assert not source.exhausted
        assert ids(source.receive(1, 10)) == ["1"]
        assert time.monotonic() - began >= 0.15


def test_a_receive_that_waits_is_woken_by_what_is_returned(path: Path) -> None:
    write(path, "1", "2")
    with source_at(path) as source:
        first, second = source.receive(2, 0)
        source.nack([first], 20)
        taken: list[Lease] = []
        waiting = threading.Thread(target=lambda: taken.extend(source.receive(1, 30)))
        waiting.start()
        source.nack([second])
        waiting.join(10)
        assert ids(taken) == ["2"]


def test_threads_share_the_lines_without_doubles_or_losses(path: Path) -> None:
    write(path, *map(str, range(3000)))
    found: list[Lease] = []
    with source_at(path) as source:
        threads = [threading.Thread(target=lambda: found.extend(drained(source, 17))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(ids(found), key=int) == [str(number) for number in range(1, 3001)]


# --- pipes -------------------------------------------------------------------------------------------


def test_giving_back_does_not_wait_for_the_next_line_of_a_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    pipe = os.open(fifo, os.O_RDWR)
    waits, look = threading.Event(), select.select

    def looked(*arguments: Any) -> Any:
        waits.set()
        return look(*arguments)

    with source_at(fifo) as source:
        os.write(pipe, b"1\n")
        given = source.receive(1, 10)
        monkeypatch.setattr("select.select", looked)
        taken: list[Lease] = []
        receiving = threading.Thread(target=lambda: taken.extend(source.receive(1, 10)))
        receiving.start()
        assert waits.wait(10)
        source.nack(given, 60)
        assert receiving.is_alive(), "it was returned only when the receive was over"
        os.write(pipe, b"2\n")
        receiving.join()
    os.close(pipe)
    assert ids(taken) == ["2"]


def test_standard_input_is_read_as_it_comes(pipe: int) -> None:
    with source_at("-") as source:
        assert source.receive(10, 0) == []
        assert not source.exhausted
        os.write(pipe, b'{"a": 1}\n{"b"')
        assert [lease.task.payload for lease in source.receive(10, 5)] == [b'{"a": 1}']
        assert source.receive(10, 0.01) == []
        os.write(pipe, b": 2}\n3")
        assert [lease.task.payload for lease in source.receive(10, 5)] == [b'{"b": 2}']
        os.close(pipe)
        assert [lease.task.payload for lease in source.receive(10, 5)] == [b"3"]
        assert source.receive(10, 0) == []
        assert source.exhausted


def _write_and_close(fd: int, data: bytes) -> None:
    os.write(fd, data)
    os.close(fd)


def test_a_line_longer_than_any_buffer_comes_whole_through_a_pipe(pipe: int) -> None:
    text = '"' + "x" * 1_000_000 + '"'
    writer = threading.Thread(target=lambda: _write_and_close(pipe, text.encode()))
    writer.start()
    with source_at("-") as source:
        [lease] = drained(source)
    writer.join()
    assert lease.task.payload.decode() == text


def test_a_named_pipe_is_read_like_standard_input(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    writer = threading.Thread(target=lambda: fifo.write_bytes(b"1\n2\n"))
    writer.start()
    with source_at(fifo) as source:
        assert ids(drained(source)) == ["1", "2"]
    writer.join()


def test_a_line_longer_than_any_event_is_told_by_number_and_is_not_kept(path: Path) -> None:
    write(path, "1", b'"' + b"x" * (LINE_BYTES + 1) + b'"', "3", b'"' + b"x" * LINE_BYTES)
    with source_at(path) as source:
        first, long, third, last = drained(source)
    assert (first.task.payload, third.task.payload) == (b"1", b"3")
    for lease, number in ((long, 2), (last, 4)):
        assert lease.task.payload == b""
        assert f"line {number}: this line is longer than {LINE_BYTES:,} bytes" in lease.invalid


def test_a_line_without_an_end_leaves_the_reader_as_small_and_as_quick_to_answer(pipe: int) -> None:
    stop = threading.Event()

    def write_on() -> None:
        while not stop.is_set():
            os.write(pipe, b"x" * 65536)
        os.close(pipe)

    writer = threading.Thread(target=write_on)
    with source_at("-") as source:
        tracemalloc.start()
        writer.start()
        began = time.monotonic()
        while tracemalloc.get_traced_memory()[1] < LINE_BYTES / 2 and time.monotonic() - began < 20:
            assert source.receive(10, 0.05) == []
        for _ in range(20):
            assert source.receive(10, 0.05) == []
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        stop.set()
        drained(source)
    writer.join()
    assert most < 4 * LINE_BYTES


def test_a_batch_of_large_lines_is_handed_out_in_parts(path: Path) -> None:
    write(path, *[b'"' + b"x" * (1 << 20) + b'"'] * 80)
    with source_at(path) as source:
        assert len(source.receive(1000, 0)) < 60
        assert len(drained(source)) > 20


def test_a_named_pipe_without_a_writer_is_open_at_once(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with source_at(fifo) as source:
        assert source.receive(1, 0.01) == []
        assert not source.exhausted
        fifo.write_bytes(b"1\n")
        assert ids(source.receive(1, 10)) == ["1"]


def test_a_byte_order_mark_before_the_first_line_is_passed_over(path: Path) -> None:
    write(path, b'\xef\xbb\xbf{"a": 1}', "2")
    with source_at(path) as source:
        assert [(lease.task.payload, lease.invalid) for lease in drained(source)] == [(b'{"a": 1}', ""), (b"2", "")]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
def test_a_file_in_another_encoding_of_unicode_is_refused_with_what_to_do(path: Path, encoding: str) -> None:
    write(path, '{"a": 1}\n'.encode(encoding))
    with source_at(path) as source, pytest.raises(Rejected, match="iconv -f UTF-16 -t UTF-8"):
        drained(source)


def test_a_line_of_latin_1_is_told_with_what_to_do(path: Path) -> None:
    write(path, '"é"'.encode("latin-1"), '"é"')
    with source_at(path) as source:
        bad, good = drained(source)
    assert "iconv -f ISO-8859-1 -t UTF-8" in bad.invalid
    assert good.invalid == ""


# --- what changes while it is read -------------------------------------------------------------------

MANY = [f'{{"n": {number:06}}}' for number in range(100_000)]


def test_a_file_that_is_cut_behind_what_was_read_is_refused_and_its_tasks_are_not_lost_in_silence(
    tmp_path: Path,
) -> None:
    path = tmp_path / "tasks.jsonl"
    write(path, *MANY)
    with source_at(path) as source:
        source.receive(1, 0)
        os.truncate(path, path.stat().st_size // 2)
        with pytest.raises(Rejected, match="was cut or rewritten while it was read"):
            drained(source)


@pytest.mark.parametrize("now", [b"", b'{"n": 1}\n' * 200_000, b'{"n": 1}\n'], ids=["cut to nothing", "other", "cut"])
def test_a_file_that_is_cut_or_rewritten_while_it_is_read_is_refused(path: Path, now: bytes) -> None:
    write(path, *(MANY if path.suffix != ".gz" else [os.urandom(1_000_000).hex(), "1"]))
    with source_at(path) as source:
        source.receive(1, 0)
        path.write_bytes(now)
        with pytest.raises(Rejected, match="was cut or rewritten while it was read"):
            drained(source)


def test_a_file_that_grows_or_loses_its_name_while_it_is_read_is_read_to_its_end(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", *MANY)
    with source_at(path) as source:
        first = source.receive(1, 0)
        with path.open("ab") as file:
            file.write(b'{"n": "more"}\n')
        path.unlink()
        found = [lease.task.payload.decode() for lease in [*first, *drained(source)]]
    assert found == [*MANY, '{"n": "more"}']


# --- what cannot be read -----------------------------------------------------------------------------


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(Rejected, match=r"\[source\] path = '.*none': the file does not exist"),
        source_at(tmp_path / "none"),
    ):
        pass


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match=r"\[source\] path = .* cannot be read: Is a directory"), source_at(tmp_path):
        pass


def test_a_path_with_a_nul_is_refused() -> None:
    with pytest.raises(ValidationError, match="NUL"):
        source_at("a\0b")


def test_a_pipe_that_is_named_as_compressed_is_refused(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo.gz"
    os.mkfifo(fifo)
    with pytest.raises(Rejected, match="zcat"), source_at(fifo):
        pass


def test_a_closed_standard_input_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(Rejected, match="standard input is closed"), source_at("-"):
        pass


@pytest.mark.parametrize("spoil", [lambda data: data[:-20], lambda data: data[:200] + b"\xff" * 100 + data[300:]])
def test_a_compressed_file_that_is_torn_or_spoilt_is_refused_by_name(tmp_path: Path, spoil: object) -> None:
    path = tmp_path / "t.jsonl.gz"
    path.write_bytes(spoil(gzip.compress(os.urandom(3000).hex().encode())))  # type: ignore[operator]
    with source_at(path) as source, pytest.raises(Rejected, match=r"t\.jsonl\.gz, after line \d+: cannot be read: "):
        drained(source)


def test_a_compressed_file_without_its_ending_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    for data, advice in (
        (gzip.compress(b"1\n2\n"), r'ends in "\.gz"'),
        (b"\x28\xb5\x2f\xfd\x04\x10\n\n", "zstd -d"),
        (bz2.compress(b"1\n"), "bzip2 -d"),
        (lzma.compress(b"1\n"), "xz -d"),
        (b"PK\x03\x04\x14\n\n", "unzip"),
        (b"SQLite format 3\0\x10\n", "sqlite"),
    ):
        path.write_bytes(data)
        with source_at(path) as source, pytest.raises(Rejected, match=advice):
            drained(source)


def test_a_plain_file_that_is_named_gz_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl.gz"
    path.write_bytes(b"1\n2\n")
    with source_at(path) as source, pytest.raises(Rejected, match="Not a gzipped file"):
        drained(source)


# --- measure -----------------------------------------------------------------------------------------


def test_it_tells_how_many_lines_are_to_come(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", *map(str, range(10)))
    with source_at(path) as source:
        assert source.stats(brief=True).states.waiting == 10
        source.receive(4, 0)
        assert source.stats(brief=True).states.waiting == 6


def test_of_a_compressed_file_and_of_a_pipe_the_depth_is_not_known(tmp_path: Path, pipe: int) -> None:
    write(tmp_path / "t.jsonl.gz", "1")
    assert source_at(tmp_path / "t.jsonl.gz").stats(brief=True).states.waiting is None
    assert source_at("-").stats(brief=True).states.waiting is None
    os.close(pipe)


def test_lines_of_every_length_are_whole_however_much_is_read_at_once(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    events = ["x" * size for size in (1, 700_000, 5, 300_000, 2_500_000, 0, 262_142, 262_144, 1_000_000)] * 3
    path.write_text("".join(json.dumps(event) + "\n" for event in events))
    with source_at(path) as source:
        leases: list[Lease] = []
        while not source.exhausted:
            leases += source.receive(100, 0)
    assert [json.loads(lease.task.payload) for lease in leases] == events
