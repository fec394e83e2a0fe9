"""Results into Redis, one key each: a line of JSON about the outcome, then the answer as it came."""

import base64
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import redis
from htcgrid.spi import FailureKind, Function, Outcome, Rejected, Result, ResultSink, Task, generation_of
from pydantic import Field

from htcgrid_redis.server import ServerConfig, connect, speaking

_AT_ONCE = 200

_PUT = """
local failed, generation = ARGV[2], tonumber(ARGV[3])
local before = redis.call('HGET', KEYS[2], ARGV[4])
if redis.call('EXISTS', KEYS[1]) == 1 and not (before and tonumber(before) < generation) then return 0 end
redis.call('SET', KEYS[1], ARGV[1])
if failed == '1' then redis.call('HSET', KEYS[2], ARGV[4], generation) else redis.call('HDEL', KEYS[2], ARGV[4]) end
return 1
"""
"""Stores a result where there is none, or a failure of an earlier generation, and notes whether it is a failure."""


class RedisSink(ResultSink):
    """The first result of a task stays, but a later generation's replaces a failure. It is a `ResultStore` too.

    As durable as the server is set up to be: with `appendfsync everysec` a power cut may take a second.
    """

    class Config(ServerConfig):
        """Results are the keys that begin with `prefix`."""

        prefix: str = Field("htcgrid:result:", description="before the task's id in the key of its result")
        max_bytes: int = Field(512_000_000, gt=0, description="the largest answer that is stored")

    config: Config
    max_batch = 500
    lists_failures = True
    keeps_runs = True

    def __init__(self, config: Config, function: Function) -> None:
        super().__init__(config, function)
        self._client: redis.Redis | None = None

    def open(self) -> None:
        self._client = connect(self.config)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def put(self, results: Sequence[Result]) -> None:
        large = [each.task.id for each in results if len(each.outcome.payload) > self.config.max_bytes]
        with speaking(), self._open.pipeline(transaction=False) as batch:
            for each in results:
                if each.task.id not in large:
                    facts = (int(each.outcome.failure is not None), generation_of(each.task), each.task.id)
                    batch.eval(_PUT, 2, self._key(each.task.id), self._failures, _stored(each), *facts)
            batch.execute()
        if large:
            message = f"Larger than [sink] max_bytes = {self.config.max_bytes}: the results of {', '.join(large)}."
            raise Rejected(message, large)

    def stored(self, tasks: Sequence[Task]) -> Collection[str]:
        with speaking(), self._open.pipeline(transaction=False) as batch:
            for task in tasks:
                batch.exists(self._key(task.id))
                batch.hget(self._failures, task.id)
            answers: Any = batch.execute()
        return [
            task.id
            for task, there, failed in zip(tasks, answers[::2], answers[1::2], strict=True)
            if there and not (failed is not None and int(failed) < generation_of(task))
        ]

    def failed(self) -> Iterator[Result]:
        """The failures with their events."""
        with speaking():
            names: Any = self._open.hscan_iter(self._failures, count=_AT_ONCE)
            ids = [name.decode() for name, _ in names]
        for start in range(0, len(ids), _AT_ONCE):
            found = self.get(ids[start : start + _AT_ONCE])
            yield from (result for result in found.values() if result.outcome.failure is not None)

    def has_failed(self) -> bool:
        with speaking():
            return bool(self._open.hlen(self._failures))

    def get(self, task_ids: Sequence[str]) -> Mapping[str, Result]:
        if not task_ids:
            return {}
        with speaking():
            found: Any = self._open.mget([self._key(task_id) for task_id in task_ids])
        return {task_id: _result(value) for task_id, value in zip(task_ids, found, strict=True) if value is not None}

    def add_run(self, document: bytes) -> None:
        with speaking():
            self._open.rpush(self._runs, document)

    def runs(self) -> Iterator[bytes]:
        with speaking():
            found: Any = self._open.lrange(self._runs, 0, -1)
        yield from found

    @property
    def _runs(self) -> str:
        return f"runs-of-{self.config.prefix}"

    @property
    def _open(self) -> redis.Redis:
        if self._client is None:
            raise Rejected("The sink is not open.")
        return self._client

    @property
    def _failures(self) -> str:
        """The key of the failed tasks' ids with their generations; no result's key, since no id is empty."""
        return self.config.prefix

    def _key(self, task_id: str) -> str:
        return self.config.prefix + task_id


def _stored(result: Result) -> bytes:
    outcome = asdict(result.outcome)
    payload: bytes = outcome.pop("payload")
    outcome["log_tail"] = base64.b64encode(outcome["log_tail"]).decode()
    kept = {"event": base64.b64encode(result.task.payload).decode()} if result.outcome.failure is not None else {}
    about = {**kept, "attributes": dict(result.task.attributes), "attempt": result.attempt, "outcome": outcome}
    return json.dumps(about).encode() + b"\n" + payload


def _result(value: bytes) -> Result:
    line, _, payload = value.partition(b"\n")
    about = json.loads(line)
    outcome = about["outcome"]
    outcome["log_tail"] = base64.b64decode(outcome["log_tail"])
    outcome["failure"] = FailureKind(outcome["failure"]) if outcome["failure"] else None
    task = Task(outcome["task_id"], base64.b64decode(about.get("event", "")), about["attributes"])
    return Result(task, Outcome(payload=payload, **outcome), about["attempt"])
