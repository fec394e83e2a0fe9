"""The peers: other ways to have two processes answer many small calls, each giving calls a second."""

import http.client
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

EVENT = {"x": 1, "y": "abc"}
HANDLERS = Path(__file__).with_name("handlers")


def noop(event):
    return event


def process_pool_executor(calls: int) -> float:
    began = time.perf_counter()
    with ProcessPoolExecutor(2) as pool:
        for future in [pool.submit(noop, EVENT) for _ in range(calls)]:
            future.result()
    return calls / (time.perf_counter() - began)


def imap_unordered(calls: int) -> float:
    began = time.perf_counter()
    with multiprocessing.Pool(2) as pool:
        done = sum(1 for _ in pool.imap_unordered(noop, (EVENT for _ in range(calls))))
    assert done == calls
    return calls / (time.perf_counter() - began)


def ray_actors(calls: int) -> float | None:
    try:
        import ray
    except ImportError:
        return None
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    worker = ray.remote(type("Worker", (), {"call": lambda self, event: event}))
    actors = [worker.remote() for _ in range(2)]
    ray.get([actor.call.remote(EVENT) for actor in actors])
    began = time.perf_counter()
    ray.get([actors[number % 2].call.remote(EVENT) for number in range(calls)])
    rate = calls / (time.perf_counter() - began)
    ray.shutdown()
    return rate


def emulators(rie: Path, calls: int, count: int = 2) -> float:
    """AWS's emulator around AWS's runtime client, `count` of them, each called over one kept connection."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(HANDLERS)}
    ports = [_free_port() for _ in range(2 * count)]
    programs = [
        subprocess.Popen(
            [
                rie,
                "--runtime-interface-emulator-address",
                f"127.0.0.1:{port}",
                "--runtime-api-address",
                f"127.0.0.1:{api}",
                sys.executable,
                "-m",
                "awslambdaric",
                "bench_handler.noop",
            ],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for port, api in zip(ports[:count], ports[count:], strict=True)
    ]
    try:
        for port in ports[:count]:
            _call_emulator(port, 1)
        threads = [threading.Thread(target=_call_emulator, args=(port, calls // count)) for port in ports[:count]]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return calls / (time.perf_counter() - began)
    finally:
        for program in programs:
            program.kill()
            program.wait()


def _call_emulator(port: int, calls: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    deadline = time.monotonic() + 20
    while True:
        try:
            connection.connect()
            break
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    body = json.dumps(EVENT)
    for _ in range(calls):
        connection.request("POST", "/2015-03-31/functions/function/invocations", body)
        assert json.loads(connection.getresponse().read()) == EVENT


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
