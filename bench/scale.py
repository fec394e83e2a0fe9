"""One agent from small to large, each row beside its peer and its physical limit, all measured in the same run.

    python bench/scale.py [--quick] [TABLE ...]

Medians of three rounds in which all sides take turns. The tables: noop, cold, payloads, busy, memory, map, results, redis,
lambda, preload. `make plugins` installs what memory, redis and lambda take; a table without its program says so.
"""

import argparse
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from multiprocessing import Pool
from pathlib import Path

import environments
import memory
import peers
import run
from delay_proxy import delayed

HERE = Path(__file__).parent
HTCGRID = Path(sys.executable).with_name("htcgrid")
ROUNDS = 3
SYNCED = 10_000_000
"""Bytes between two `fdatasync`."""


def row(what: str, ours: str, peer: str = "", limit: str = "", held_to: str = "") -> None:
    print(f"{what:<48}{ours:>16}{peer:>30}{limit:>30}   {held_to}", flush=True)


def head(title: str, peer: str = "peer", limit: str = "limit") -> None:
    print()
    row(title, "htcgrid", peer, limit, "held to")


def in_turns(*sides: Callable[[], float]) -> list[list[float]]:
    """What each side gives in each round, so that a machine whose speed wanders meets all alike."""
    return [list(times) for times in zip(*[[side() for side in sides] for _ in range(ROUNDS)], strict=True)]


def ratio(ours: list[float], theirs: list[float]) -> float:
    return statistics.median(our / their for our, their in zip(ours, theirs, strict=True))


# --- small and large payloads ---


def imap_rate(calls: int, event: object) -> float:
    began = time.perf_counter()
    with Pool(2) as pool:
        assert sum(1 for _ in pool.imap_unordered(peers.noop, (event for _ in range(calls)))) == calls
    return calls / (time.perf_counter() - began)


def disk_rate(folder: Path, size: int) -> float:
    """Bytes a second that this disk takes, synced as often as results are."""
    data, began = b"x" * 1_000_000, time.perf_counter()
    with (folder / "disk").open("wb", buffering=0) as file:
        for written in range(0, size, len(data)):
            file.write(data)
            if written % SYNCED == 0:
                os.fdatasync(file.fileno())
        os.fdatasync(file.fileno())
    return size / (time.perf_counter() - began)


def payloads(scale: int) -> None:
    head("payloads in and out, tasks/s", "Pool(2).imap_unordered", "disk, fdatasync each 10 MB")
    for size, tasks, least in (
        (100, 200_000, "1.5 x"),
        (1_000, 100_000, "1.5 x"),
        (10_000, 20_000, "1 x"),
        (100_000, 4_000, "0.6 x"),
        (1_000_000, 400, "0.6 x"),
    ):
        count, event = tasks // scale, {"x": "y" * size}
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)

            def ours(folder: Path = folder, event: dict = event, count: int = count) -> float:
                return count / run.job(folder, "noop", event, count)[0]

            ours_, theirs, disk = in_turns(
                ours,
                lambda count=count, event=event: imap_rate(count, event),
                lambda folder=folder, size=size, count=count: disk_rate(folder, min(size * count, 200_000_000)),
            )
        rate = statistics.median(ours_)
        limit = f"{rate * size / 1e6:,.0f} of {statistics.median(disk) / 1e6:,.0f} MB/s"
        figure = f"{rate:,.0f}"
        row(
            f"{size / 1000:g} KB",
            figure,
            f"{statistics.median(theirs):,.0f}: {ratio(ours_, theirs):.2f} x",
            limit,
            least,
        )


# --- busy environments ---


def slept(ms: float) -> None:
    time.sleep(ms / 1000)


def pool_share(workers: int, ms: float, rounds: int) -> float:
    """The busy share of a Pool of that size, its start left out."""
    with Pool(workers) as pool:
        list(pool.imap_unordered(slept, [1.0] * workers * 4))
        began = time.perf_counter()
        list(pool.imap_unordered(slept, [ms] * workers * rounds))
        return rounds * ms / 1000 / (time.perf_counter() - began)


def busy(scale: int) -> None:
    head("busy share of environments that sleep", "multiprocessing.Pool", "the sleeps alone")
    for workers, ms, least in ((2, 1000, "99.5 %"), (64, 10, "95 %"), (256, 100, "97 %"), (512, 1000, "98 %")):
        rounds = max(4, round(8000 / ms) // scale)
        ours, theirs = in_turns(
            lambda workers=workers, ms=ms, rounds=rounds: environments.share(workers, ms, rounds)[0],
            lambda workers=workers, ms=ms, rounds=rounds: pool_share(workers, ms, rounds),
        )
        what = f"{workers} environments, {ms:g} ms"
        row(what, f"{statistics.median(ours):.1%}", f"{statistics.median(theirs):.1%}", "100 %", f"at least {least}")


# --- results ---


def results(scale: int) -> None:
    count = 100_000 // scale
    head("htcgrid results", "sqlite3 reads the rows", "cat of as many bytes")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        memory.config(folder, "sqlite")
        memory.events(folder / "tasks.jsonl", count, 100)
        for command in (["submit", "tasks.jsonl"], ["run", "--quiet", "--set", "source.drain=true"]):
            subprocess.run([HTCGRID, *command], cwd=folder, check=True, capture_output=True)

        used: list[float] = []

        def ours() -> float:
            began, before = time.perf_counter(), os.times()
            with (folder / "out").open("wb") as out:
                subprocess.run([HTCGRID, "results"], cwd=folder, check=True, stdout=out)
            after = os.times()
            used.append(sum(after[2:4]) - sum(before[2:4]))
            return time.perf_counter() - began

        def rows() -> float:
            began = time.perf_counter()
            with sqlite3.connect(folder / "results.db") as database:
                (table,) = database.execute(
                    "SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE 'res%'"
                ).fetchone()
                found = database.execute(f"SELECT * FROM {table}").fetchall()
            assert len(found) == count
            return time.perf_counter() - began

        def cat() -> float:
            began = time.perf_counter()
            with (folder / "copy").open("wb") as out:
                subprocess.run(["cat", "out"], cwd=folder, check=True, stdout=out)
            return time.perf_counter() - began

        times = [statistics.median(side) for side in in_turns(ours, rows, cat)]
        assert len((folder / "out").read_bytes().splitlines()) == count
    figures = [f"{seconds:.2f} s" for seconds in times]
    row(f"{count:,} results of 100 bytes from sqlite", *figures, "under 2 s for 100,000")
    row("  of that on a processor", f"{statistics.median(used):.2f} s")


# --- a queue that is away ---


def redis_rate(port: int, tasks: int, stream: str) -> float:
    """Tasks a second from a Redis stream to Redis, from the first that is received to the last that is acked."""
    from htcgrid_redis.sink import RedisSink
    from htcgrid_redis.source import RedisSource

    from htcgrid.agent.agent import Agent
    from htcgrid.builtin.process import ProcessInvoker
    from htcgrid.spi import Function, Task

    function = Function(handler="bench_handler.noop", code=peers.HANDLERS)
    keys = {"url": f"redis://127.0.0.1:{port}"}
    source = RedisSource(RedisSource.Config(stream=stream, create=True, **keys), function)
    sink = RedisSink(RedisSink.Config(prefix=f"{stream}:", **keys), function)
    with source, sink, ProcessInvoker(ProcessInvoker.Config(workers=2), function) as plane:
        given = [Task(f"t-{number}", b'{"x": 1, "y": "abc"}') for number in range(tasks)]
        for start in range(0, tasks, 1000):
            source.redrive(given[start : start + 1000])
        agent = Agent(source, plane, sink)
        thread = threading.Thread(target=agent.run)
        began = time.perf_counter()
        thread.start()
        while agent.summary().succeeded < tasks or agent.held:
            time.sleep(0.005)
        took = time.perf_counter() - began
        agent.drain(0)
        thread.join()
    return tasks / took


def redis_queue(scale: int) -> None:
    import shutil

    head("no-op from a Redis stream to Redis, tasks/s", "the same, here", "")
    if shutil.which("redis-server") is None:
        row("redis-server is not installed", "")
        return
    tasks = 60_000 // scale
    with tempfile.TemporaryDirectory() as folder:
        port = peers._free_port()
        options = ["--port", f"{port}", "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        server = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
        try:
            time.sleep(1)
            with delayed(port, 0.002) as far:
                names = iter(range(100))
                away, here = in_turns(
                    lambda: redis_rate(far, tasks, f"away-{next(names)}"),
                    lambda: redis_rate(port, tasks, f"here-{next(names)}"),
                )
        finally:
            server.kill()
    figures = f"{statistics.median(away):,.0f}", f"{statistics.median(here):,.0f}: {ratio(away, here):.0%}"
    row("a Redis that is 2 ms away", *figures, "", "at least 80 % of the local rate")


# --- tables that other programs print ---


def program(*arguments: str | Path) -> None:
    path = Path(arguments[0])
    print(f"\n{path.name} {' '.join(map(str, arguments[1:]))}", flush=True)
    if not path.exists():
        print(f"there is no {path}", flush=True)
        return
    subprocess.run([sys.executable, *arguments], check=True, cwd=HERE)


def noop(scale: int) -> None:
    head("no-op, file to file", "peers: below", "")
    rie = subprocess.run(
        [sys.executable, HERE.parent / "tests/parts/rie.py"], check=True, capture_output=True, text=True
    ).stdout.strip()
    with tempfile.TemporaryDirectory() as folder:
        run.against_peers(Path(folder), scale, Path(rie))


def cold(scale: int) -> None:
    head("a cold start", "", "python -c pass")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run.job(folder, "noop", peers.EVENT, 1)

        def python() -> float:
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", "pass"], check=True)
            return time.perf_counter() - began

        ours, limit = in_turns(lambda: run.first_answer(folder), python)
    figures = f"{statistics.median(ours):.3f} s", "", f"{statistics.median(limit):.3f} s"
    row("htcgrid invoke '{}'", *figures, "under 0.25 s where bytecode may be written")


def in_flight(scale: int) -> None:
    program(HERE.parent / "plugins/aws_lambda/bench/in_flight.py", "500", str(12 // min(scale, 3)), "1")
    print("held to: a busy share of 97 % at the full limit; the limit is 100 %")


TABLES: dict[str, Callable[[int], None]] = {
    "noop": noop,
    "cold": cold,
    "payloads": payloads,
    "busy": busy,
    "memory": lambda scale: program(
        HERE / "memory.py", *(["--quick"] if scale > 1 else []), "run", "sqs", "serve", "slow", "map"
    ),
    "map": lambda _scale: program(HERE / "latency.py"),
    "results": results,
    "redis": redis_queue,
    "lambda": in_flight,
    "preload": lambda _scale: program(HERE / "preload.py"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", nargs="*", choices=[*TABLES, []], help="all of them, if none is named")
    parser.add_argument("--quick", action="store_true", help="a tenth of the tasks")
    given = parser.parse_args()
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}; medians of {ROUNDS} rounds", flush=True)
    for name in given.table or TABLES:
        TABLES[name](10 if given.quick else 1)


if __name__ == "__main__":
    main()
