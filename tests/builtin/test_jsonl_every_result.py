"""Results of a file, read for their figures: those that stand, each once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from htcgrid.builtin.jsonl_sink import JsonlSink
from htcgrid.spi import GENERATION, FailureKind, Function, Outcome, Rejected, Result, Task

ERROR = b'{"errorType":"E","errorMessage":"bad"}'


def sink_of(path: Path) -> JsonlSink:
    return JsonlSink(JsonlSink.Config(path=path), Function(handler="a.b"))


def made(task_id: str, payload: bytes = b"1", failure: FailureKind | None = None, generation: int = 0) -> Result:
    attributes = {GENERATION: str(generation)} if generation else {}
    outcome = Outcome(task_id, payload, failure, 1_780_000_000.25, 12.5, 13, 99)
    return Result(Task(task_id, b"", attributes), outcome, 3)


@pytest.mark.parametrize("name", ["results.jsonl", "results.jsonl.gz"])
def test_figures_come_back_whatever_is_in_ids_and_answers(tmp_path: Path, name: str) -> None:
    put = [
        made("plain"),
        made('quo"te \\ \u00e9 \n', b'"text"'),
        made("nan", b"NaN"),
        made("bytes", b"\xff"),
        made("fake", b'{"a": [1,{"attempt":9,"started":"2001-01-01T00:00:00.000Z"}]}'),
        made("failed", ERROR, FailureKind.TIMEOUT),
    ]
    with sink_of(tmp_path / name) as sink:
        sink.put(put)
    found = list(sink_of(tmp_path / name).every_result())
    assert [each.task.id for each in found] == [each.task.id for each in put]
    for each, before in zip(found, put, strict=True):
        assert replace(each.outcome, payload=b"") == replace(before.outcome, payload=b"")
        assert each.attempt == 3
    assert b"errorMessage" in found[-1].outcome.payload


def test_a_failure_that_was_replaced_is_not_among_them_also_while_a_run_writes(tmp_path: Path) -> None:
    with sink_of(tmp_path / "r.jsonl") as sink:
        sink.put([made("a", ERROR, FailureKind.EXIT), made("b")])
        sink.put([made("a", generation=1)])
        reader = sink_of(tmp_path / "r.jsonl")
        reader.open_to_read()
        found = {each.task.id: each.outcome.failure for each in reader.every_result()}
    assert found == {"a": None, "b": None}


@pytest.mark.parametrize("name", ["results.jsonl", "results.jsonl.gz"])
def test_whatever_is_written_of_the_last_result_the_others_are_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    sizes = []
    with sink_of(path) as sink:
        for task_id in ("first", "second"):
            sink.put([made(task_id, ERROR, FailureKind.TIMEOUT)])
            sizes.append(path.stat().st_size)
    whole = path.read_bytes()
    for size in range(*sizes):
        path.write_bytes(whole[:size])
        assert [each.task.id for each in sink_of(path).failed()][:1] == ["first"], size
        assert [each.task.id for each in sink_of(path).every_result()][:1] == ["first"], size


def test_a_last_line_that_is_being_written_is_passed_over_and_damage_is_said(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    with sink_of(path) as sink:
        sink.put([made("a"), made("b")])
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    assert [each.task.id for each in sink_of(path).every_result()] == ["a"]
    path.write_bytes(whole.replace(b'"billed_ms":13', b'"billed_ms":xx', 1))
    with pytest.raises(Rejected, match="task 'a' is damaged"):
        list(sink_of(path).every_result())


def test_failures_far_apart_are_found_and_a_line_of_somebody_else_between_them_is_named(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    answer = b'"%b"' % (b"x" * 5_000)
    with sink_of(path) as sink:
        sink.put([made("first", ERROR, FailureKind.TIMEOUT)])
        sink.put([made(f"good-{number}", answer) for number in range(1_000)])
        sink.put([made("last", ERROR, FailureKind.EXIT)])
    assert [each.task.id for each in sink_of(path).failed()] == ["first", "last"]
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:900], b"of another program\n", *lines[900:]]))
    with pytest.raises(Rejected, match="line 901: this is not a result of htcgrid"):
        list(sink_of(path).failed())


def test_damage_within_a_compressed_file_is_said(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl.gz"
    with sink_of(path) as sink:
        sink.put([made("a", ERROR, FailureKind.TIMEOUT)])
        header_end = path.stat().st_size + 10
        sink.put([made("b", ERROR, FailureKind.TIMEOUT)])
    data = bytearray(path.read_bytes())
    data[header_end] = 0xFF
    path.write_bytes(data)
    for read in (sink_of(path).every_result, sink_of(path).failed):
        with pytest.raises(Rejected, match=r"results\.jsonl\.gz' cannot be read: .*invalid block type"):
            list(read())


def test_a_damaged_failure_is_told_in_one_sentence_without_its_log(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    with sink_of(path) as sink:
        sink.put([made("a", b'"%b"' % (b"x" * 10_000), FailureKind.EXIT)])
    path.write_bytes(path.read_bytes().replace(b"xxxx", b"xx\xffx", 1))
    with pytest.raises(Rejected, match="'a' is damaged: UnicodeDecodeError") as refused:
        list(sink_of(path).every_result())
    assert len(str(refused.value)) < 1000
