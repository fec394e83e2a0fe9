"""`htcgrid report`: the page's figures are those of the run."""

from __future__ import annotations

import os
import re
import resource
import stat
import subprocess
import sys
import time
from html import unescape
from typing import TYPE_CHECKING

import pytest

from htcgrid import plugins
from htcgrid.spi import FailureKind, Function, Outcome, Result, ResultSink, Task

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Done, Project

SINKS = {"jsonl": "results.jsonl", "sqlite": "results.db"}
FLAKY = """\
import os, time

def handler(event, context):
    if event.get("flaky"):
        try:
            open(event["flaky"], "x").close()
        except FileExistsError:
            return "at last"
        os._exit(1)
    if "raise" in event: raise ValueError(event["raise"])
    time.sleep(event.get("sleep", 0.002))
    return event
"""


def tile(page: str, name: str) -> str:
    found = re.search(rf"<dt>{name}</dt><dd>([^<]*)</dd>", page)
    assert found is not None, name
    return unescape(found[1])


@pytest.mark.parametrize("sink", SINKS)
def test_figures_are_those_of_a_run_with_retries_a_timeout_and_failures(project: Project, sink: str) -> None:
    project.write("job.py", FLAKY)
    events: list[dict[str, object]] = [{"n": n} for n in range(60)]
    events += [{"raise": f"<script>{n}</script>"} for n in range(5)]
    events += [{"flaky": "a"}, {"flaky": "b"}, {"sleep": 30}]
    project.tasks(*events)
    results = SINKS[sink]
    options = ("--set", f"sink.plugin={sink}", "--set", f"sink.path={results}", "--set", "function.timeout=2")
    done = project.htcgrid("run", *options)
    summary = done.summary
    assert summary["failures"] == {"handler_error": 5, "timeout": 1}
    assert summary["retried"] >= 2

    made = project.htcgrid("report", results, "-o", "page.html")
    assert made.status == 0, made.err
    assert made.err.endswith("page.html: 68 results, 6 of them failed.\n")
    page = (project.folder / "page.html").read_text()
    assert tile(page, "Succeeded") == str(summary["succeeded"]) == "62"
    assert tile(page, "Failed") == str(summary["failed"]) == "6"
    assert tile(page, "Tried again") == str(summary["retried"])
    assert tile(page, "Most memory") == f"{summary['max_memory_mb']} MB"
    value, unit = tile(page, "Median duration").split()
    assert float(value) * {"ms": 1, "s": 1000}[unit] == pytest.approx(summary["p50_ms"], rel=0.05)
    value, unit = tile(page, "Billed").split()
    assert float(value) * {"ms": 1, "s": 1000}[unit] == pytest.approx(summary["billed_ms"], rel=0.01)
    assert '<tr><th scope="row">handler_error</th><td>5</td>' in page
    assert '<tr><th scope="row">timeout</th><td>1</td>' in page
    assert re.search(r"&lt;script&gt;\d&lt;/script&gt;", page)
    assert "<script" not in page
    assert "512 MB, 2.0 s" in page  # of the manifest
    assert ("timeline-chart" in page) == (sink == "sqlite")


def test_without_a_file_the_sink_of_the_config_is_read_with_its_limits(
    inside: Callable[..., Done], project: Project
) -> None:
    project.htcgrid("run")
    (project.folder / "results.jsonl.manifest.jsonl").unlink()
    assert inside("report", "--set", "function.memory=96", "-o", "page.html").status == 0
    page = (project.folder / "page.html").read_text()
    assert tile(page, "Succeeded") == "3"
    assert "the limit is 96 MB" in page
    assert "There is no manifest beside these results" in page


def test_of_a_task_that_was_run_again_its_last_result_counts(project: Project) -> None:
    project.write("job.py", "import os\ndef handler(event, context): return {}['a'] if os.path.exists('bad') else 1\n")
    (project.folder / "bad").touch()
    assert project.htcgrid("run").summary["failed"] == 3
    (project.folder / "bad").unlink()
    project.htcgrid("redrive")
    assert project.htcgrid("report", "-o", "page.html").err.endswith("3 results, 0 of them failed.\n")
    assert "Runs into these results, all; the last one first" in (project.folder / "page.html").read_text()


@pytest.mark.parametrize("name", ["missing.jsonl", "htcgrid.toml", "."])
def test_what_holds_no_results_is_refused_and_writes_no_page(
    inside: Callable[..., Done], project: Project, name: str
) -> None:
    done = inside("report", name, "-o", "page.html")
    assert done.status == 2
    assert "results" in done.err
    assert not (project.folder / "page.html").exists()
    assert not (project.folder / "missing.jsonl").exists()


@pytest.mark.parametrize("arguments", [("results.jsonl",), ()])
def test_results_are_not_replaced_by_their_page(
    inside: Callable[..., Done], project: Project, arguments: tuple[str, ...]
) -> None:
    project.htcgrid("run")
    results = project.folder / "results.jsonl"
    before = results.read_bytes()
    done = inside("report", *arguments, "-o", "results.jsonl")
    assert done.status == 2
    assert f"--output {results}: this file is read, and would be replaced. Name another file." in done.err
    assert results.read_bytes() == before


def test_a_page_that_cannot_be_written_is_said(inside: Callable[..., Done], project: Project) -> None:
    project.htcgrid("run")
    done = inside("report", "results.jsonl", "-o", "none/page.html")
    assert done.status == 3
    assert "page.html cannot be written" in done.err


def test_a_device_that_is_named_for_the_page_stays_one(inside: Callable[..., Done], project: Project) -> None:
    project.htcgrid("run")
    device = project.folder / "full"
    try:
        os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 7))  # as /dev/full, which a failure would replace
        device.open("wb").close()
    except OSError:
        pytest.skip("no devices can be made here, or not opened in this folder")
    done = inside("report", "results.jsonl", "-o", "full")
    assert (done.status, device.is_char_device()) == (3, True)
    assert "full cannot be written: No space left on device" in done.err


def test_a_page_goes_through_a_link_or_a_pipe_and_leaves_it_there(project: Project) -> None:
    project.htcgrid("run")
    link, pipe = project.folder / "link.html", project.folder / "pipe"
    link.symlink_to("page.html")
    assert project.htcgrid("report", "results.jsonl", "-o", "link.html").status == 0
    assert link.is_symlink()
    assert tile((project.folder / "page.html").read_text(), "Succeeded") == "3"
    os.mkfifo(pipe)
    program = project.start("report", "results.jsonl", "-o", "pipe")
    assert tile(pipe.read_text(), "Succeeded") == "3"
    assert program.wait(60) == 0
    assert pipe.is_fifo()


def test_an_answer_that_looks_like_figures_is_not_taken_for_them(project: Project) -> None:
    project.tasks(
        {"x": ',"attempt":99,"started":"2001-01-01T00:00:00.000Z","duration_ms":9,"billed_ms":9,"max_memory_mb":9}'}
    )
    project.htcgrid("run")
    project.htcgrid("report", "results.jsonl", "-o", "page.html")
    page = (project.folder / "page.html").read_text()
    assert tile(page, "Tried again") == "0"
    assert "2001" not in page


MILLION = 1_000_000


def _fill(kind: str, path: Path, count: int) -> None:
    plugin = plugins.load(ResultSink, kind)
    kinds = list(FailureKind)

    def made(n: int) -> Result:
        failure = kinds[n // 10 % 8] if n % 10 == 0 else None
        payload = b'{"errorType":"E","errorMessage":"case %d of %d"}' % (n % 700, n) if failure else b"%d" % n
        outcome = Outcome(
            *(f"task-{n}", payload, failure, 1.7e9 + n * 0.003, 1.0 + n % 977, 1 + n % 977, 40 + n % 300),
            log_tail=b"a line\n" * 40,
            environment=f"environment-{n % 3000:032d}",
        )
        return Result(Task(f"task-{n}", b""), outcome, 1 + (n % 50 == 0))

    with plugin(plugin.Config.model_validate({"path": path}), Function(handler="a.b")) as sink:
        for start in range(0, count, 1000):
            sink.put([made(n) for n in range(start, start + 1000)])


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", SINKS)
def test_a_million_results_are_a_small_page_in_bounded_memory_and_a_minute_of_computing(
    tmp_path: Path, kind: str
) -> None:
    path = tmp_path / SINKS[kind]
    _fill(kind, path, MILLION)
    script = (
        "import resource, sys; from htcgrid.cli.main import status_of\n"
        f"status = status_of(['report', {str(path)!r}, '-o', {str(tmp_path / 'page.html')!r}])\n"
        "print(status, open('/proc/self/status').read().partition('VmHWM:')[2].split()[0])"
    )
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    status, kilobytes = done.stdout.split()
    assert status == "0", done.stderr
    page = (tmp_path / "page.html").read_text()
    assert tile(page, "Succeeded") == "900,000"
    assert tile(page, "Failed") == "100,000"
    assert tile(page, "Tried again") == "20,000"
    assert len(page.encode()) < 3_000_000
    assert int(kilobytes) < 300 * 1024
    # Computing time, as other tests share the processors.
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(  # noqa: T201 - the figures, with -s
        f"{kind}: {used:.1f} s computed, {time.monotonic() - began:.1f} s, {int(kilobytes) // 1024} MB, {len(page):,} B"
    )
    assert used < 60
