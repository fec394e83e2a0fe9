"""Tasks from a Redis stream, shared by the agents of a consumer group.

An entry of the stream is a task: its field `id` is the task's id, `payload` the event as JSON, and
`attributes`, which may be left out, an object of texts.

How leases stand on what Redis keeps of an entry that was handed out: its consumer, how often it was
delivered, and how long it has been idle. An entry is handed out again when it has been idle for the
`horizon`, which is longer than any lease or delay. A lease of 30 s is an entry made to look as if it had
been idle for all but 30 s of it; a delay is the same thing.
"""

import json
import time
import uuid
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import redis
from htcgrid.spi import Function, Lease, Rejected, Task, TaskSource, generation_of
from pydantic import Field

from htcgrid_redis.server import ServerConfig, connect, speaking

_LOOK_SECONDS = 0.25
"""How often a receive that waits looks for leases that have lapsed."""

_SET_IDLE = """
local gone = {}
for i = 5, #ARGV, 2 do
  local held = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[i], ARGV[i], 1)[1]
  if held and held[2] == ARGV[2] and held[4] == tonumber(ARGV[i + 1]) then
    redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[4], 0, ARGV[i], 'IDLE', ARGV[3], 'JUSTID')
  else
    gone[#gone + 1] = ARGV[i]
  end
end
return gone
"""
"""Sets the idle time of the entries that this consumer has leased, for this attempt, and whose they are then; returns the others."""

_RETURNED = "returned"
"""The consumer of what was returned, so that a late extend does not find it among its own."""


_REDRIVE = """
local before = redis.call('HGET', KEYS[2], ARGV[1])
if before and tonumber(before) >= tonumber(ARGV[4]) then return 0 end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[4])
redis.call('XADD', KEYS[1], '*', 'id', ARGV[1], 'payload', ARGV[2], 'attributes', ARGV[3])
return 1
"""
"""Adds a task unless it was added in this generation or a later one: a redrive may be given again."""


class RedisSource(TaskSource):
    """A consumer of a group on a Redis stream."""

    class Config(ServerConfig):
        """Agents of the same stream and group share its tasks."""

        stream: str = Field(description="the key of the stream", examples=["tasks"])
        group: str = Field("htcgrid", description="the consumer group; made where there is none")
        create: bool = Field(False, description="make the stream where there is none")
        lease_seconds: float = Field(30.0, gt=0, description="seconds that a lease lasts")
        longest_delay: float = Field(60.0, ge=0, description="seconds that a returned task may have to wait, at most")

    config: Config
    max_batch = 500
    """A receive makes three calls, the agent's look for stored results among them: of 100 tasks each, a server that is 2 ms
    away halved the rate."""
    redrives = True

    def __init__(self, config: Config, function: Function) -> None:
        super().__init__(config, function)
        self.lease_seconds = config.lease_seconds
        self._horizon_ms = round((config.lease_seconds + config.longest_delay) * 1000)
        self._consumer = uuid.uuid4().hex
        self._client: redis.Redis | None = None
        self._cursor: Any = "0-0"

    def open(self) -> None:
        self._client = client = connect(self.config)
        with speaking():
            if not self.config.create and not client.exists(self.config.stream):
                message = f"There is no stream {self.config.stream!r}. Put a task into it, or set create = true."
                raise Rejected(message)
            try:
                client.xgroup_create(self.config.stream, self.config.group, id="0", mkstream=self.config.create)
            except redis.ResponseError as error:
                if "BUSYGROUP" not in str(error):  # the group is there: another agent made it
                    raise

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def receive(self, max_tasks: int, wait: float) -> Sequence[Lease]:
        deadline = time.monotonic() + wait
        max_tasks = min(max_tasks, self.max_batch)
        while True:
            left = deadline - time.monotonic()
            leases = self._lapsed(max_tasks) or self._fresh(max_tasks, min(left, _LOOK_SECONDS))
            if leases or time.monotonic() >= deadline:
                return leases

    def ack(self, leases: Sequence[Lease]) -> None:
        entries = [lease.receipt for lease in leases]
        if not entries:
            return
        with speaking(), self._open.pipeline() as both:
            both.xack(self.config.stream, self.config.group, *entries)
            both.xdel(self.config.stream, *entries)
            both.execute()

    def nack(self, leases: Sequence[Lease], delay: float = 0.0) -> None:
        if delay > self.config.longest_delay + self.config.lease_seconds:
            raise Rejected(f"A delay of {delay:g} s is more than [source] longest_delay allows. Raise it.")
        self._keep_for(leases, delay, _RETURNED)

    def extend(self, leases: Sequence[Lease], seconds: float) -> Collection[str]:
        gone = self._keep_for(leases, seconds, self._consumer)
        return [lease.task.id for lease in leases if lease.receipt in gone]

    def redrive(self, tasks: Sequence[Task]) -> None:
        """Add them to the stream again, each generation of a task once."""
        with speaking(), self._open.pipeline(transaction=False) as batch:
            for task in tasks:
                keys = (self.config.stream, f"{self.config.stream}:redriven")
                attributes = json.dumps(dict(task.attributes))
                batch.eval(_REDRIVE, 2, *keys, task.id, task.payload, attributes, generation_of(task))
            batch.execute()

    @property
    def _open(self) -> redis.Redis:
        if self._client is None:
            raise Rejected("The source is not open.")
        return self._client

    def _lapsed(self, most: int) -> Sequence[Lease]:
        """What is not leased any more is handed out again: to this consumer."""
        stream, group = self.config.stream, self.config.group
        with speaking():
            found: Any = self._open.xautoclaim(stream, group, self._consumer, self._horizon_ms, self._cursor, most)
            self._cursor, entries = found[0], found[1]
            if not entries:
                return ()
            with self._open.pipeline(transaction=False) as counts:
                for entry, _ in entries:
                    counts.xpending_range(stream, group, entry, entry, 1)
                deliveries = [held[0]["times_delivered"] if held else 1 for held in counts.execute()]
        return self._leased([_lease(entry, attempt) for entry, attempt in zip(entries, deliveries, strict=True)])

    def _fresh(self, most: int, wait: float) -> Sequence[Lease]:
        """What no consumer has had."""
        block = max(1, round(wait * 1000)) if wait > 0 else None  # Redis waits for ever when told 0
        with speaking():
            found: Any = self._open.xreadgroup(
                self.config.group, self._consumer, {self.config.stream: ">"}, count=most, block=block
            )
        return self._leased([_lease(entry, 1) for _, entries in found or () for entry in entries])

    def _leased(self, leases: Sequence[Lease]) -> Sequence[Lease]:
        if leases:
            self._keep_for(leases, self.config.lease_seconds, self._consumer)
        return leases

    def _keep_for(self, leases: Sequence[Lease], seconds: float, consumer: str) -> Collection[str]:
        """Have these handed out again in so many seconds; returns the receipts of those that are ours no more."""
        idle = max(0, self._horizon_ms - round(seconds * 1000))
        held = [part for lease in leases for part in (lease.receipt, lease.attempt)]
        with speaking():
            gone: Any = self._open.eval(
                _SET_IDLE, 1, self.config.stream, self.config.group, self._consumer, idle, consumer, *held
            )
        return {entry.decode() for entry in gone}


def _lease(entry: tuple[bytes, Mapping[bytes, bytes]], attempt: int) -> Lease:
    name, fields = entry[0].decode(), entry[1]
    try:
        attributes = json.loads(fields.get(b"attributes", b"{}"))
        return Lease(Task(fields[b"id"].decode(), fields[b"payload"], attributes), attempt, name)
    except (KeyError, ValueError) as error:
        why = f"Entry {name} is not a task: it needs the fields id and payload, and attributes as JSON ({error!r})."
        return Lease(Task(name, fields.get(b"payload", b"null")), attempt, name, invalid=why)
