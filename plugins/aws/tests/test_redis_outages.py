"""HTC-Grid's data plane in a real Redis that takes no writes for a while: what passes is waited for."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import pytest
import redis
from htcgrid_aws.htc_sink import HtcGridSink

from htcgrid.spi import Function, Outcome, Rejected, Result, Task, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import HtcGrid


@contextlib.contextmanager
def replica(server: Any) -> Iterator[None]:
    server.execute_command("REPLICAOF", "127.0.0.1", "1")
    server.config_set("replica-serve-stale-data", "yes")
    try:
        yield
    finally:
        server.execute_command("REPLICAOF", "NO", "ONE")


@contextlib.contextmanager
def stale_replica(server: Any) -> Iterator[None]:
    with replica(server):
        server.config_set("replica-serve-stale-data", "no")
        yield
    server.config_set("replica-serve-stale-data", "yes")


@contextlib.contextmanager
def setting(server: Any, name: str, value: str, before: str) -> Iterator[None]:
    server.config_set(name, value)
    try:
        yield
    finally:
        server.config_set(name, before)


OUTAGES: dict[str, Callable[[Any], contextlib.AbstractContextManager[None]]] = {
    "a failover that is not over": replica,
    "a replica without its primary": stale_replica,
    "too few replicas": lambda server: setting(server, "min-replicas-to-write", "1", "0"),
    "no memory": lambda server: setting(server, "maxmemory", "1", "0"),
}


@pytest.mark.parametrize("outage", OUTAGES)
def test_an_answer_is_stored_after_redis_has_refused_writes_for_a_while(
    make_htc: Callable[..., HtcGrid], outage: str
) -> None:
    grid = make_htc("REDIS")
    (task_id,) = grid.submit([1])
    row = grid.read(task_id)
    grid.write({**row, "task_status": row["task_status"].replace("pending", "processing"), "task_owner": "me"})
    config = HtcGridSink.Config(config_file=grid.config_file, endpoint_url=grid.aws.url, redis_tls=False, owner="me")
    result = Result(Task(task_id, b"1"), Outcome(task_id, b"42", started=1.0))
    with HtcGridSink(config, Function()) as sink:
        with OUTAGES[outage](grid.redis), pytest.raises(Unavailable, match="SET: "):
            sink.put([result])
        sink.put([result])
    assert json.loads(grid.get(f"{task_id}-output")) == 42


def test_after_a_failover_the_connections_are_made_anew(make_htc: Callable[..., HtcGrid]) -> None:
    grid = make_htc("REDIS")
    config = HtcGridSink.Config(config_file=grid.config_file, endpoint_url=grid.aws.url, redis_tls=False)
    with HtcGridSink(config, Function()) as sink:
        others = {each["id"] for each in grid.redis.client_list()} - {str(grid.redis.client_id())}
        with replica(grid.redis), pytest.raises(Unavailable):
            sink.data.put("key", b"1")
        sink.data.put("key", b"1")
        assert others - {each["id"] for each in grid.redis.client_list()}


def test_a_refusal_of_redis_that_does_not_pass_is_not_waited_for(make_htc: Callable[..., HtcGrid]) -> None:
    grid = make_htc("REDIS")
    grid.redis.rpush("list-input", "no text")
    config = HtcGridSink.Config(config_file=grid.config_file, endpoint_url=grid.aws.url, redis_tls=False)
    with HtcGridSink(config, Function()) as sink, pytest.raises(Exception, match="WRONGTYPE") as caught:
        sink.data.get("list-input")
    assert not isinstance(caught.value, (Unavailable, redis.RedisError))


@pytest.mark.parametrize("address", ["rediss://:hidden-one@cache:6379", "me:hidden-one@cache"])
def test_an_address_with_a_password_is_refused_without_showing_it(
    make_htc: Callable[..., HtcGrid], address: str
) -> None:
    grid = make_htc("REDIS", redis_url=address)
    config = HtcGridSink.Config(config_file=grid.config_file, endpoint_url=grid.aws.url)
    with pytest.raises(Rejected, match="a password is for redis_password") as caught, HtcGridSink(config, Function()):
        pass
    assert "hidden-one" not in str(caught.value)
