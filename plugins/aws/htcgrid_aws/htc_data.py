"""HTC-Grid's data plane: base64 texts by key, in S3, in Redis, or in both."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any, Protocol

from htcgrid.spi import Rejected, Unavailable

if TYPE_CHECKING:
    from htcgrid_aws.htc_config import GridConfig, HtcGridConfig
    from htcgrid_aws.s3_bucket import Bucket

TEXT = "text/plain"
_PASSING = ("MISCONF ", "NOREPLICAS ", "BUSY ")
"""Errors of Redis that pass: its disk is full, it has no replica just now, or it runs a long script."""


class DataPlane(Protocol):
    """Where inputs and outputs are. `name` is for messages."""

    name: str

    def put(self, key: str, body: bytes) -> None: ...

    def get(self, key: str) -> bytes | None: ...

    def close(self) -> None: ...


def encoded(payload: bytes) -> bytes:
    """A payload as HTC-Grid stores it."""
    return base64.b64encode(payload)


def decoded(body: bytes) -> bytes:
    """The payload of a text that HTC-Grid stored. Raises ValueError if the text is not base64."""
    try:
        return base64.b64decode(body, validate=True)
    except binascii.Error as error:
        raise ValueError(f"not base64: {error}") from error


class InS3:
    def __init__(self, bucket: Bucket) -> None:
        self.name = f"s3://{bucket.name}/"
        self._bucket = bucket

    def put(self, key: str, body: bytes) -> None:
        self._bucket.put(key, body, TEXT)

    def get(self, key: str) -> bytes | None:
        return self._bucket.get(key)

    def close(self) -> None:
        """The plugin closes the client."""


class InRedis:
    """`behind` is S3 for the data plane S3+REDIS: it is written first, and read if Redis has lost a key."""

    def __init__(self, client: Any, address: str, behind: InS3 | None = None) -> None:
        self.name = f"Redis at {address}, keys "
        self._redis = client
        self._behind = behind

    def check(self) -> None:
        """Raises `Unavailable` or `Rejected` if Redis does not answer as it should."""
        self._ask("ping")

    def put(self, key: str, body: bytes) -> None:
        if self._behind:
            self._behind.put(key, body)
        self._ask("set", key, body)

    def get(self, key: str) -> bytes | None:
        body: bytes | None = self._ask("get", key)
        if body is None and self._behind:
            body = self._behind.get(key)
            if body is not None:
                self._ask("set", key, body)
        return body

    def close(self) -> None:
        self._redis.close()

    def _ask(self, command: str, *arguments: Any) -> Any:
        from redis import exceptions  # noqa: PLC0415 - Redis is an optional extra

        try:
            return getattr(self._redis, command)(*arguments)
        except (exceptions.AuthenticationError, exceptions.AuthorizationError, exceptions.NoPermissionError) as error:
            message = f"{self.name}{command.upper()}: not permitted ({error}); check redis_password, here or in HTC-Grid's file"
            raise Rejected(message) from error
        except (exceptions.ConnectionError, exceptions.TimeoutError, exceptions.OutOfMemoryError) as error:
            raise Unavailable(f"{self.name}{command.upper()}: {error}") from error
        except (exceptions.ReadOnlyError, exceptions.ClusterDownError, exceptions.TryAgainError) as error:
            # In a failover: the host's name leads to the new primary once the connections are made anew.
            self._redis.connection_pool.disconnect(inuse_connections=False)
            raise Unavailable(f"{self.name}{command.upper()}: {error}") from error
        except exceptions.RedisError as error:
            kind = Unavailable if str(error).startswith(_PASSING) else Rejected
            raise kind(f"{self.name}{command.upper()}: {error}") from error


def connect(config: HtcGridConfig, grid: GridConfig, bucket: Bucket | None) -> DataPlane:
    """The data plane of HTC-Grid's file, checked."""
    behind = None
    if bucket:
        bucket.check()
        behind = InS3(bucket)
        if grid.grid_storage_service == "S3":
            return behind
    try:
        import redis  # noqa: PLC0415 - an optional extra
        from redis.backoff import NoBackoff  # noqa: PLC0415
        from redis.retry import Retry  # noqa: PLC0415
    except ImportError as error:
        message = (
            f"grid_storage_service is {grid.grid_storage_service}, but the redis package is not installed; "
            "pip install 'htcgrid-aws[redis]'"
        )
        raise Rejected(message) from error
    host, _, port = grid.redis_url.removeprefix("rediss://").removeprefix("redis://").rstrip("/").partition(":")
    if not host or (port and not port.isdecimal()):
        # Not shown: an address of this form may hold a password.
        raise Rejected(f"{config.origin}: redis_url: write the host, or host:port; a password is for redis_password")
    client = redis.Redis(
        host=host,
        port=int(port or 6379),
        password=grid.redis_password.get_secret_value() or None,
        ssl=config.redis_tls,
        socket_connect_timeout=10,
        socket_timeout=30,
        retry=Retry(NoBackoff(), 0),
        max_connections=config.connections,
    )
    plane = InRedis(client, f"{host}:{port or 6379}", behind)
    try:
        plane.check()
    except BaseException:
        plane.close()
        raise
    return plane
