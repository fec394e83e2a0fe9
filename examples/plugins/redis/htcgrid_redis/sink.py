"""Results into Redis, one key each: a line of JSON about the outcome, then the answer as it came."""

import base64
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import redis
from htcgrid.spi import FailureKind, Function, Outcome, Rejected, Result, ResultSink, Task
from pydantic import Field

from htcgrid_redis.server import ServerConfig, connect, speaking


class RedisSink(ResultSink):
    """The first result of a task stays. It can be read, so it is a `ResultStore` too.

    As durable as the server is set up to be: with `appendfsync everysec` a power cut may take a second.
    """

    class Config(ServerConfig):
        """Results are the keys that begin with `prefix`."""

        prefix: str = Field("htcgrid:result:", description="before the task's id in the key of its result")
        max_bytes: int = Field(512_000_000, gt=0, description="the largest answer that is stored")

    config: Config
    max_batch = 500

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
                    batch.set(self._key(each.task.id), _stored(each), nx=True)
            batch.execute()
        if large:
            message = f"Larger than [sink] max_bytes = {self.config.max_bytes}: the results of {', '.join(large)}."
            raise Rejected(message, large)

    def stored(self, tasks: Sequence[Task]) -> Collection[str]:
        with speaking(), self._open.pipeline(transaction=False) as batch:
            for task in tasks:
                batch.exists(self._key(task.id))
            return [task.id for task, there in zip(tasks, batch.execute(), strict=True) if there]

    def get(self, task_ids: Sequence[str]) -> Mapping[str, Result]:
        if not task_ids:
            return {}
        with speaking():
            found: Any = self._open.mget([self._key(task_id) for task_id in task_ids])
        return {task_id: _result(value) for task_id, value in zip(task_ids, found, strict=True) if value is not None}

    @property
    def _open(self) -> redis.Redis:
        if self._client is None:
            raise Rejected("The sink is not open.")
        return self._client

    def _key(self, task_id: str) -> str:
        return self.config.prefix + task_id


def _stored(result: Result) -> bytes:
    outcome = asdict(result.outcome)
    payload: bytes = outcome.pop("payload")
    outcome["log_tail"] = base64.b64encode(outcome["log_tail"]).decode()
    about = {"attributes": dict(result.task.attributes), "attempt": result.attempt, "outcome": outcome}
    return json.dumps(about).encode() + b"\n" + payload


def _result(value: bytes) -> Result:
    line, _, payload = value.partition(b"\n")
    about = json.loads(line)
    outcome = about["outcome"]
    outcome["log_tail"] = base64.b64decode(outcome["log_tail"])
    outcome["failure"] = FailureKind(outcome["failure"]) if outcome["failure"] else None
    task = Task(outcome["task_id"], b"", about["attributes"])
    return Result(task, Outcome(payload=payload, **outcome), about["attempt"])
