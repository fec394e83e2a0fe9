from __future__ import annotations

import base64
import errno
import gzip
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from htcgrid.builtin.id_table import Ids
from htcgrid.builtin.jsonl_results import line as result_line
from htcgrid.builtin.jsonl_sink import JsonlSink
from htcgrid.spi import FailureKind, Function, Outcome, Rejected, Result, Task, Unavailable

FUNCTION = Function(handler="job.handler")


def sink_at(path: object, function: Function = FUNCTION) -> JsonlSink:
    return JsonlSink(JsonlSink.Config.model_validate({"path": path}), function)


def task(task_id: str) -> Task:
    return Task(task_id, b'{"event":"%s"}' % task_id.encode("utf-8", "surrogatepass"))


def result(task_id: str, payload: bytes = b"1", failure: FailureKind | None = None, **facts: Any) -> Result:
    return Result(task(task_id), Outcome(task_id, payload, failure, **facts))


def read(path: Path) -> list[dict[str, Any]]:
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in data.decode().splitlines()]


def ids(path: Path) -> list[str]:
    return [line["id"] for line in read(path)]


@pytest.fixture(params=["results.jsonl", "results.jsonl.gz"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / str(request.param)


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    return tmp_path / "results.jsonl"


# --- the lines ---------------------------------------------------------------------------------------


def test_a_line_says_what_came_of_the_task(path: Path) -> None:
    failed = Outcome(
        "b",
        b'{"errorType":"ValueError"}',
        FailureKind.HANDLER_ERROR,
        started=1700000000.25,
        duration_ms=12.5,
        billed_ms=13,
        max_memory_mb=40,
        log_tail=b"hello\n",
    )
    with sink_at(path) as sink:
        sink.put([result("a", b'{"price": 1.50}', started=1700000000.0), Result(task("b"), failed, attempt=2)])
    succeeded, failure = read(path)
    assert succeeded == {
        "id": "a",
        "fingerprint": succeeded["fingerprint"],
        "status": "succeeded",
        "output": {"price": 1.5},
        "attempt": 1,
        "started": "2023-11-14T22:13:20.000Z",
        "duration_ms": 0.0,
        "billed_ms": 0,
        "max_memory_mb": 0,
    }
    assert failure == {
        "id": "b",
        "fingerprint": failure["fingerprint"],
        "status": "failed",
        "error": {"errorType": "ValueError"},
        "failure": "handler_error",
        "log_tail": "hello\n",
        "attempt": 2,
        "started": "2023-11-14T22:13:20.250Z",
        "duration_ms": 12.5,
        "billed_ms": 13,
        "max_memory_mb": 40,
    }


def test_the_answer_is_not_touched(plain: Path) -> None:
    with sink_at(plain) as sink:
        sink.put([result("a", b'{"price": 1.50, "price": 2e0,  "\\u00e9": 1e999}')])
    assert b'"output":{"price": 1.50, "price": 2e0,  "\\u00e9": 1e999},' in plain.read_bytes()


@pytest.mark.parametrize("answer", ["NaN", '{"mean": -Infinity}', "[Infinity, NaN]"])
def test_an_answer_that_only_python_takes_for_json_is_kept_as_text(path: Path, answer: str) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(name)

    with sink_at(path) as sink:
        sink.put([result("a", answer.encode()), result("b", answer.encode(), FailureKind.HANDLER_ERROR)])
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    first, second = (json.loads(line, parse_constant=refuse) for line in data.splitlines())
    assert first["output_text"] == second["error"] == answer
    assert "output" not in first
    with sink_at(path) as sink:
        assert sorted(sink.stored([task("a"), task("b")])) == ["a", "b"]


@pytest.mark.parametrize(
    "payload",
    [b"not json", b"\xff\xfe\x00", b"", b"[" * 100_000, b'"\xed\xa0\x80"', '{"a":1}'.encode("utf-16"), b"1 2"],
    ids=["text", "bytes", "empty", "deep", "surrogate", "utf-16", "two"],
)
def test_an_answer_that_is_not_json_is_kept_in_base64_and_harms_no_other(path: Path, payload: bytes) -> None:
    with sink_at(path) as sink:
        sink.put([result("a", payload), result("b", b"2")])
    first, second = read(path)
    assert base64.b64decode(first["output_base64"]) == payload
    assert second["output"] == 2


@pytest.mark.parametrize("payload", [b'{\n  "a": 1\r\n}', b"[1,\r2]", '"\u2028\u0085"'.encode(), b'"\\ud800"'])
def test_a_result_is_one_line_however_the_answer_is_laid_out(plain: Path, payload: bytes) -> None:
    with sink_at(plain) as sink:
        sink.put([result("a", payload), result("b")])
    with plain.open(encoding="utf-8") as file:  # as most people read it, with universal newlines
        first, second = (json.loads(line) for line in file)
    assert first["output"] == json.loads(payload)
    assert second["id"] == "b"


@pytest.mark.slow
@given(
    st.text(st.characters(codec=None, categories=None), max_size=20),
    st.recursive(
        st.none() | st.booleans() | st.floats(allow_nan=False) | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=10,
    ),
    st.binary(max_size=50),
    st.none() | st.sampled_from(FailureKind),
)
def test_any_id_answer_and_log_come_back_from_the_line(
    task_id: str, answer: object, log: bytes, failure: FailureKind | None
) -> None:
    payload = json.dumps(answer, ensure_ascii=False).encode("utf-8", "surrogatepass")
    text = result_line(result(task_id, payload, failure, log_tail=log), 7)
    assert text.endswith("\n")
    assert text.count("\n") == 1
    found = json.loads(text)
    assert found["id"] == task_id
    assert found["fingerprint"] == "00000007"
    if failure is None and "output" in found:
        assert found["output"] == answer
    if failure is not None:
        assert found["log_tail"] == log.decode("utf-8", "replace")


# --- again -------------------------------------------------------------------------------------------


def test_what_is_there_is_known_when_the_file_is_opened_again(path: Path) -> None:
    strange = [
        "7",
        "é",
        'quo"te',
        "back\\slash",
        "line\nbreak",
        "\ud800",
        "0",
        "007",
        "99999999999",
        "٣",
        "-1",
        "a" * 300,
    ]
    with sink_at(path) as sink:
        sink.put([result(task_id) for task_id in strange])
    with sink_at(path) as sink:
        assert sorted(sink.stored([task(task_id) for task_id in [*strange, "other", "3", "1", "00"]])) == sorted(
            strange
        )
        sink.put([result(task_id, b"2") for task_id in strange])
    assert ids(path) == strange
    assert {line["output"] for line in read(path)} == {1}


def test_one_task_put_twice_is_one_line(path: Path) -> None:
    with sink_at(path) as sink:
        sink.put([result("a", b"1"), result("a", b"2")])
        sink.put([result("a", b"3")])
    assert [line["output"] for line in read(path)] in ([1], [2])


def test_many_threads_put_whole_lines(path: Path) -> None:
    with sink_at(path) as sink:

        def put_twenty(n: int) -> None:
            for m in range(20):
                sink.put([result(f"{n}-{m}")])

        threads = [threading.Thread(target=put_twenty, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(ids(path)) == sorted(f"{n}-{m}" for n in range(4) for m in range(20))


def test_results_are_added_to_what_is_there(path: Path) -> None:
    for name in "abc":
        with sink_at(path) as sink:
            sink.put([result(name)])
    assert ids(path) == ["a", "b", "c"]


def torn_at_every_byte(path: Path) -> Iterator[tuple[int, bytes]]:
    with sink_at(path) as sink:
        sink.put([result("a"), result("b")])
        whole = path.stat().st_size
        sink.put([result('"c"', b'{"text": "x"}')])
    data = path.read_bytes()
    for size in range(whole, len(data)):
        yield size, data[:size]


def test_a_torn_end_is_cut_off_wherever_it_was_torn_and_the_rest_is_kept(path: Path) -> None:
    for size, data in torn_at_every_byte(path):
        path.write_bytes(data)
        with sink_at(path) as sink:
            assert sorted(sink.stored([task("a"), task("b"), task('"c"')])) == ["a", "b"], size
            sink.put([result('"c"'), result("d")])
        assert ids(path) == ["a", "b", '"c"', "d"], size


def test_an_end_of_zeros_as_a_power_cut_leaves_it_is_cut_off(plain: Path) -> None:
    with sink_at(plain) as sink:
        sink.put([result("a")])
    with plain.open("ab") as file:
        file.write(bytes(100))
    with sink_at(plain) as sink:
        sink.put([result("b")])
    assert ids(plain) == ["a", "b"]


def damaged(path: Path, *, at: bytes, with_: bytes) -> bytes:
    """Three batches of which the last has five results, and is damaged at a place."""
    with sink_at(path) as sink:
        sink.put([result("a")])
        sink.put([result("b")])
        sink.put([result(name) for name in ("c1", "c2", "c3", "c4", "c5")])
    data = path.read_bytes()
    where = data.index(at, data.index(b'{"id":"c1"'))
    path.write_bytes(data[:where] + with_ + data[where + len(with_) :])
    return path.read_bytes()


@pytest.mark.parametrize(
    ("at", "with_", "kept"),
    [
        (b'{"id":"c1"', bytes(300), []),
        (b'{"id":"c3"', bytes(40), ["c1", "c2"]),
        (b',"attempt"', bytes(5), []),
    ],
    ids=["from its start", "on a head", "in a body"],
)
def test_a_damaged_end_is_put_aside_and_its_tasks_run_again(
    plain: Path, caplog: pytest.LogCaptureFixture, at: bytes, with_: bytes, kept: list[str]
) -> None:
    data = damaged(plain, at=at, with_=with_)
    with sink_at(plain) as sink:
        assert sorted(sink.stored([task(name) for name in ("a", "b", "c1", "c2", "c3", "c4", "c5")])) == [
            "a",
            "b",
            *kept,
        ]
        sink.put([result("c3")])
    assert ids(plain) == ["a", "b", *kept, "c3"]
    aside = plain.with_name("results.jsonl.damaged")
    assert data.endswith(aside.read_bytes())
    assert str(aside) in caplog.text


def test_a_line_torn_in_the_middle_of_the_last_batch_is_put_aside(plain: Path) -> None:
    damaged(plain, at=b'"c2"', with_=b'"c2"')
    data = plain.read_bytes()
    start = data.index(b'{"id":"c2"')
    plain.write_bytes(data[: start + 60] + data[data.index(b'{"id":"c3"') :])
    with sink_at(plain) as sink:
        assert sorted(sink.stored([task(name) for name in ("a", "b", "c1", "c2", "c3")])) == ["a", "b", "c1"]


def test_damage_far_from_the_end_is_refused_by_its_place(plain: Path) -> None:
    with sink_at(plain) as sink:
        sink.put([result("a"), result("b")])
        sink.put([result(str(number)) for number in range(10_000)])
    data = plain.read_bytes()
    place = data.index(b'{"id":"b"')
    plain.write_bytes(data[:place] + bytes(5) + data[place + 5 :])
    with pytest.raises(Rejected, match=f"damaged at byte {place:,}, and 10,000 lines follow"), sink_at(plain):
        pass
    assert len(plain.read_bytes()) == len(data)


@pytest.mark.parametrize("offset", [-3, -12, -30, 5])
def test_a_damaged_byte_within_a_compressed_file_is_refused_and_nothing_is_dropped(tmp_path: Path, offset: int) -> None:
    path = tmp_path / "results.jsonl.gz"
    with sink_at(path) as sink:
        sink.put([result("a")])
        first = path.stat().st_size
        sink.put([result("b")])
        second = path.stat().st_size
        sink.put([result("c")])
    data = bytearray(path.read_bytes())
    data[second + offset if offset < 0 else first + 12 + offset] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(Rejected, match=f"damaged between bytes {first} and {second}") as refused, sink_at(path):
        pass
    assert path.read_bytes() == data
    commands = str(refused.value).split("`")[1]
    subprocess.run(["bash", "-c", commands], cwd=tmp_path, check=True)
    (tmp_path / "repaired.jsonl.gz").rename(path)
    with sink_at(path) as sink:
        assert sorted(sink.stored([task("a"), task("b"), task("c")])) == ["a", "c"]


def test_a_damaged_last_part_of_a_compressed_file_is_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl.gz"
    with sink_at(path) as sink:
        sink.put([result("a")])
        first = path.stat().st_size
        sink.put([result("b")])
    data = bytearray(path.read_bytes())
    data[-2] ^= 0xFF
    path.write_bytes(data)
    with sink_at(path) as sink:
        assert sink.stored([task("a"), task("b")]) == ["a"]
    assert (tmp_path / "results.jsonl.gz.damaged").read_bytes() == data[first:]


# --- what happens to the file meanwhile ---------------------------------------------------------------


def _replace(path: Path) -> None:
    (path.parent / "new").write_bytes(b"")
    (path.parent / "new").rename(path)


MEANWHILE = [Path.unlink, lambda path: os.truncate(path, 0), _replace, lambda path: path.rename(path.parent / "old")]
NAMES = ["removed", "cut", "replaced", "renamed"]


@pytest.mark.parametrize("harm", MEANWHILE, ids=NAMES)
def test_a_file_that_is_harmed_takes_no_more_results(path: Path, harm: Callable[[Path], object]) -> None:
    with sink_at(path) as sink:
        sink.put([result("a")])
        harm(path)
        for _ in range(2):
            with pytest.raises(Rejected, match="while results were written to it"):
                sink.put([result("b")])
            with pytest.raises(Rejected, match="while results were written to it"):
                sink.stored([task("a")])


@pytest.mark.parametrize("harm", MEANWHILE, ids=NAMES)
def test_a_file_that_was_harmed_after_the_last_result_is_told_at_the_end(
    path: Path, harm: Callable[[Path], object]
) -> None:
    sink = sink_at(path)
    sink.open()
    sink.put([result("a")])
    harm(path)
    with pytest.raises(Rejected, match="while results were written to it"):
        sink.close()
    sink.close()


@pytest.mark.parametrize("heals", [True, False])
def test_half_a_batch_that_could_not_be_cut_off_is_cut_off_before_the_next(
    path: Path, monkeypatch: pytest.MonkeyPatch, heals: bool
) -> None:
    def read_only(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    write, sizes = os.write, set[int]()

    def half(fd: int, data: bytes) -> int:
        if sizes and len(data) < max(sizes):
            read_only()
        sizes.add(len(data))
        return write(fd, data[:10])

    with sink_at(path) as sink:
        sink.put([result("a")])
        with monkeypatch.context() as patched:
            patched.setattr(os, "ftruncate", read_only)
            patched.setattr(os, "write", half)
            for _ in range(2):
                with pytest.raises(Unavailable, match="Read-only file system"):
                    sink.put([result("b")])
        if heals:
            sink.put([result("b")])
    with sink_at(path) as sink:
        assert sorted(sink.stored([task("a"), task("b")])) == (["a", "b"] if heals else ["a"])


# --- what must not be harmed -------------------------------------------------------------------------

FOREIGN = [
    b'{"id": "a"}\n{"id": "b"}\n',
    b'{"id": "a"}\n{"id": "b"}',
    b'{"id":"a","s":100}',
    b'{"id":"a","s":100}\n{"id":"b","s":100}',
    b"my only notes",
    b"first line\nlast line without an end",
    b"\n",
    b"{}\n",
    b"SQLite format 3\0\x10\0\n\0\0",
    b"a program\0\0",
    b"\0\1\0\0 a font",
    b"\0\0\n\0\0 an image",
]


@pytest.mark.parametrize("content", FOREIGN)
def test_a_file_that_holds_something_else_is_refused_and_left_as_it_is(plain: Path, content: bytes) -> None:
    plain.write_bytes(content)
    with pytest.raises(Rejected, match=r"not a result of htcgrid\. Name another file in \[sink\] path"), sink_at(plain):
        pass
    assert plain.read_bytes() == content


@pytest.mark.parametrize("content", [*FOREIGN, b""])
def test_a_compressed_file_that_holds_something_else_is_left_as_it_is_even_torn(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "foreign.gz"
    whole = gzip.compress(content * 50) if content else b"no gzip at all"
    for data in (whole, whole[:-6]):
        path.write_bytes(data)
        with pytest.raises(Rejected, match="not a result of htcgrid"), sink_at(path):
            pass
        assert path.read_bytes() == data


def test_results_whose_beginning_a_power_cut_has_lost_run_again(plain: Path) -> None:
    with sink_at(plain) as sink:
        sink.put([result("a"), result("b")])
    data = plain.read_bytes()
    for lost in (bytes(40) + data[40:], bytes(len(data))):
        plain.write_bytes(lost)
        with sink_at(plain) as sink:
            assert sink.stored([task("a"), task("b")]) == []
            sink.put([result("a"), result("b")])
        assert ids(plain) == ["a", "b"]


def test_a_compressed_file_with_half_a_line_in_it_is_refused_and_nothing_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl.gz"
    with sink_at(path) as sink:
        sink.put([result(name) for name in ("a", "b", "c")])
    lines = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
    lines[1] = lines[1][:40] + b"\n"
    path.write_bytes(gzip.compress(b"".join(lines)))
    data = path.read_bytes()
    with pytest.raises(Rejected, match=f"damaged at byte {len(lines[0])} of its unpacked text"), sink_at(path):
        pass
    assert path.read_bytes() == data
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_results_file_with_a_strange_line_is_refused_by_its_number(plain: Path) -> None:
    with sink_at(plain) as sink:
        sink.put([result("a"), result("b")])
    data = plain.read_bytes() + b"what is this\n"
    plain.write_bytes(data)
    with pytest.raises(Rejected, match=r"results\.jsonl, line 3: "), sink_at(plain):
        pass
    assert plain.read_bytes() == data


@pytest.mark.parametrize(
    ("other", "function"),
    [(Task("a", b'{"event":"another"}'), FUNCTION), (task("a"), Function(handler="other.handler"))],
    ids=["event", "handler"],
)
def test_results_of_another_job_are_refused(path: Path, other: Task, function: Function) -> None:
    with sink_at(path) as sink:
        sink.put([result("a")])
    with (
        sink_at(path, function) as sink,
        pytest.raises(Rejected, match="has a result for id 'a', but of another event or handler"),
    ):
        sink.stored([other])


def test_a_file_that_another_run_writes_is_refused(path: Path) -> None:
    with sink_at(path) as sink:
        with pytest.raises(Rejected, match="another run is writing to it"), sink_at(path):
            pass
        sink.put([result("a")])
    assert ids(path) == ["a"]


# --- what cannot be written --------------------------------------------------------------------------


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match=r"\[sink\] path = .* cannot be written: Is a directory"), sink_at(tmp_path):
        pass


def test_a_path_with_a_nul_is_refused() -> None:
    with pytest.raises(ValueError, match=r"path\n.*it holds a NUL character"), sink_at("a\0b"):
        pass


def test_a_path_in_no_folder_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(Rejected, match=r"cannot be written: No such file or directory\. Name a file in a folder"),
        sink_at(tmp_path / "none" / "results.jsonl"),
    ):
        pass


def test_a_full_disk_is_unavailable_and_leaves_no_half_line(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with sink_at(path) as sink:
        sink.put([result("a")])
        whole = path.read_bytes()
        write, full = os.write, [True]

        def half(fd: int, data: bytes) -> int:
            if full and fd == sink._fd:
                if len(data) < 20:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return write(fd, data[: len(data) // 2])
            return write(fd, data)

        monkeypatch.setattr(os, "write", half)
        with pytest.raises(Unavailable, match="cannot be written: No space left on device"):
            sink.put([result("b"), result("c")])
        assert path.read_bytes() == whole
        assert sink.stored([task("b")]) == []
        full.clear()
        sink.put([result("b"), result("c")])
    assert ids(path) == ["a", "b", "c"]


def test_a_file_size_limit_is_met_by_the_real_kernel_and_nothing_is_lost(plain: Path) -> None:
    """The same from a process whose files may not grow past 400 bytes."""
    script = f"""
import resource, signal
from htcgrid.builtin.id_table import Ids
from htcgrid.builtin.jsonl_sink import JsonlSink
from htcgrid.spi import Function, Outcome, Result, Task, Unavailable
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (400, resource.RLIM_INFINITY))
with JsonlSink(JsonlSink.Config(path={str(plain)!r}), Function(handler="job.handler")) as sink:
    sink.put([Result(Task("a", b"1"), Outcome("a", b"1"))])
    try:
        sink.put([Result(Task(n, b"1"), Outcome(n, b"1")) for n in "bcdef"])
    except Unavailable as error:
        print(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    sink.put([Result(Task(n, b"1"), Outcome(n, b"1")) for n in "bcdef"])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "cannot be written: File too large" in done.stdout
    assert ids(plain) == list("abcdef")


def test_standard_output_on_a_full_disk_gets_each_line_once_when_there_is_room(tmp_path: Path) -> None:
    """What it took before it was full cannot be cut off."""
    script = """
import resource, signal
from htcgrid.builtin.id_table import Ids
from htcgrid.builtin.jsonl_sink import JsonlSink
from htcgrid.spi import Function, Outcome, Result, Task, Unavailable
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (400, resource.RLIM_INFINITY))
results = [Result(Task(n, b"1"), Outcome(n, b"1")) for n in "abcdef"]
with JsonlSink(JsonlSink.Config(path="-"), Function(handler="job.handler")) as sink:
    for _ in range(2):
        try:
            sink.put(results)
        except Unavailable:
            assert sink.stored([Task("a", b"1")]) == ()
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    sink.put(results[:1])
    assert sink.stored([Task("a", b"1")]) == ["a"]
"""
    written = tmp_path / "out.jsonl"
    with written.open("wb") as out:
        subprocess.run([sys.executable, "-c", script], stdout=out, check=True)
    assert ids(written) == list("abcdef")


def test_a_device_takes_results_though_it_cannot_be_synced() -> None:
    with sink_at("/dev/null") as sink:
        sink.put([result("a")])
        assert sink.stored([task("a")]) == ["a"]


def test_a_device_that_is_full_is_unavailable() -> None:
    with sink_at("/dev/full") as sink, pytest.raises(Unavailable, match="No space left on device"):
        sink.put([result("a")])


def test_what_a_put_beside_the_question_could_not_send_is_not_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    with sink_at("/dev/full") as sink:
        look_up = sink._known.get_all

        def beside_a_put(task_ids: Ids) -> list[int | None]:
            monkeypatch.undo()
            with pytest.raises(Unavailable):
                sink.put([result("a")])
            return look_up(task_ids)

        monkeypatch.setattr(sink._known, "get_all", beside_a_put)
        assert sink.stored([task("a")]) == ()


def test_closing_twice_or_before_opening_is_quiet(plain: Path) -> None:
    sink = sink_at(plain)
    sink.close()
    sink.open()
    sink.close()
    sink.close()


def test_results_are_on_the_disk_when_put_returns(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Sequence[str]] = []
    monkeypatch.setattr(os, "fdatasync", lambda _fd: synced.append(ids(plain)))
    with sink_at(plain) as sink:
        sink.put([result("a")])
        sink.put([result("b")])
    assert synced == [["a"], ["a", "b"]]


# --- generations -------------------------------------------------------------------------------------


def text_of(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


@pytest.mark.parametrize("name", ["r.jsonl", "r.jsonl.gz"])
def test_what_a_killed_redrive_has_left_is_read_as_it_stands_and_tidied_by_the_next_run(
    tmp_path: Path, name: str
) -> None:
    config = JsonlSink.Config(path=tmp_path / name)
    failure = Outcome("a", b'{"errorType": "E"}', FailureKind.EXIT)
    killed = JsonlSink(config, Function())
    killed.open()
    killed.put([Result(Task("a", b"1"), failure), Result(Task("b", b"2"), Outcome("b", b"2"))])
    killed.put([Result(Task("a", b"1", {"generation": "1"}), Outcome("a", b"3"))])
    whole = text_of(config.path)
    os.close(killed._fd)  # as the end of its process does, with no `close`
    killed._fd = -1
    assert (whole.count(b"\n"), list(JsonlSink(config, Function()).failed())) == (3, [])
    with JsonlSink(config, Function()) as sink:
        assert not sink.has_failed()
        sink.put([Result(Task("a", b"1"), failure)])  # late, of the old generation
    after = text_of(config.path)
    assert after == b"".join(whole.splitlines(keepends=True)[1:])
    assert [path.name for path in tmp_path.iterdir()] == [name]


# --- large answers -----------------------------------------------------------------------------------

LARGE = {
    "plain": b'{"text": "' + b"a" * 9000 + b'"}',
    "on several lines": b'{\n  "text": "' + b"a" * 9000 + b'"\r\n}',
    "not finite": b'["' + b"a" * 9000 + b'", NaN]',
    "no JSON": b"a" * 9000,
    "no text": b"\xff" * 9000,
    "lone surrogate": b'"\\ud800' + b"a" * 9000 + b'"',
    "beyond ASCII": '"é€𝄞'.encode() + b"a" * 9000 + b'"',
}


@pytest.mark.parametrize("what", LARGE)
def test_a_large_answer_stands_on_the_same_line_as_beside_small_ones(what: str, tmp_path: Path) -> None:
    facts: dict[str, Any] = {"started": 1.5, "duration_ms": 2.25, "billed_ms": 3, "max_memory_mb": 4}
    large = result('a "name"', LARGE[what], **facts)
    small = [result(str(number)) for number in range(20)]
    for name, results in {"alone": [large], "among": [large, *small]}.items():
        with sink_at(tmp_path / name) as sink:
            sink.put(results)
    assert (tmp_path / "alone").read_bytes() == (tmp_path / "among").read_bytes().splitlines(keepends=True)[0]


def test_large_answers_that_the_system_takes_in_parts_are_whole(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writev = os.writev
    monkeypatch.setattr(os, "writev", lambda fd, views: writev(fd, [memoryview(b"".join(views))[:5000]]))
    results = [result(str(number), b'"%s"' % (b"%d" % number * 7000)) for number in range(10)]
    with sink_at(plain) as sink:
        sink.put(results)
    assert [line["output"] for line in read(plain)] == [str(number) * 7000 for number in range(10)]


def test_large_answers_of_redriven_and_failed_tasks_are_on_lines_like_any_other(plain: Path) -> None:
    again = Result(Task("again", b"1", {"generation": "1"}), Outcome("again", LARGE["plain"]))
    failed = result("failed", b'{"errorMessage":"%s"}' % (b"a" * 9000), FailureKind.HANDLER_ERROR)
    with sink_at(plain) as sink:
        sink.put([again, failed])
    lines = read(plain)
    assert [(line["id"], line["status"], line.get("generation")) for line in lines] == [
        ("again", "succeeded", 1),
        ("failed", "failed", None),
    ]
