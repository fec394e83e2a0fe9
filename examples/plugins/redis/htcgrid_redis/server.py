"""The connection, and what its errors mean to an agent."""

from collections.abc import Iterator
from contextlib import contextmanager

import redis
from htcgrid.spi import Plugin, Rejected, Unavailable
from pydantic import Field, SecretStr
from redis.backoff import NoBackoff
from redis.exceptions import ClusterDownError
from redis.retry import Retry


class ServerConfig(Plugin.Config):
    """Where the server is. The address may hold a password, so it is a secret."""

    url: SecretStr = Field(SecretStr("redis://localhost:6379"), description="redis://, rediss:// or unix:// address")


def connect(config: ServerConfig) -> redis.Redis:
    """A client that makes one attempt: the agent retries. `Rejected` where the server or the login is wrong for good."""
    try:
        # redis-py retries by itself unless it is told not to.
        client = redis.Redis.from_url(
            config.url.get_secret_value(), socket_timeout=10, socket_connect_timeout=5, retry=Retry(NoBackoff(), 0)
        )
    except ValueError as error:
        raise Rejected(f"url is no address of a Redis server: {error}. Write redis://HOST:PORT/DATABASE.") from None
    with speaking():
        client.ping()
    return client


@contextmanager
def speaking() -> Iterator[None]:
    """Turn the client's errors into the two that htcgrid knows."""
    try:
        yield
    except redis.AuthenticationError as error:  # a ConnectionError too, but trying again will not help
        raise Rejected(f"Redis refuses the login: {error}. Put user and password into url.") from None
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise Unavailable(f"Redis cannot be reached: {error}.") from None
    except (redis.ReadOnlyError, redis.OutOfMemoryError, ClusterDownError) as error:
        raise Unavailable(f"Redis takes no writes now: {error}.") from None
    except redis.ResponseError as error:
        if any(f"{code} " in str(error) for code in ("MISCONF", "NOREPLICAS", "OOM", "BUSY")):
            raise Unavailable(f"Redis takes no writes now: {error}.") from None
        raise Rejected(f"Redis refuses this: {error}.") from None
