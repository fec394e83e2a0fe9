"""AWS by moto over HTTP, a real Redis, and HTC-Grid's clients as an oracle that shares no code with the plugin."""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import json
import shutil
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import aws_server
import boto3
import botocore.session
import outage_options
import pytest
import redis
from moto.server import ThreadedMotoServer

REGION = "eu-west-1"
_numbers = count(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    outage_options.add_options(parser)


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "test-secret-key",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)


@dataclass
class Aws:
    """Queues, tables and buckets made and looked at straight with boto3."""

    server: ThreadedMotoServer
    url: str
    clients: dict[str, Any] = field(default_factory=dict)

    def client(self, service: str) -> Any:
        keys = {"aws_access_key_id": "oracle", "aws_secret_access_key": "oracle"}
        if service not in self.clients:  # making one takes 100 ms
            self.clients[service] = boto3.client(service, endpoint_url=self.url, region_name=REGION, **keys)
        return self.clients[service]

    def queue(self, visibility: int = 30, name: str = "", **attributes: str) -> str:
        name = name or f"tasks-{next(_numbers)}"
        self.client("sqs").create_queue(QueueName=name, Attributes={"VisibilityTimeout": str(visibility), **attributes})
        return name

    def queue_url(self, name: str) -> str:
        return str(self.client("sqs").get_queue_url(QueueName=name)["QueueUrl"])

    def queue_arn(self, name: str) -> str:
        return f"arn:aws:sqs:{REGION}:123456789012:{name}"

    def send(self, queue: str, body: str, **attributes: str) -> str:
        texts = {key: {"DataType": "String", "StringValue": value} for key, value in attributes.items()}
        answer = self.client("sqs").send_message(
            QueueUrl=self.queue_url(queue), MessageBody=body, MessageAttributes=texts
        )
        return str(answer["MessageId"])

    def messages(self, queue: str) -> list[Any]:
        answer = self.client("sqs").receive_message(
            QueueUrl=self.queue_url(queue), MaxNumberOfMessages=10, VisibilityTimeout=0, MessageAttributeNames=["All"]
        )
        return list(answer.get("Messages", []))

    def waiting(self, queue: str) -> tuple[int, int]:
        """Messages visible, and messages in flight."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.client("sqs").get_queue_attributes(QueueUrl=self.queue_url(queue), AttributeNames=names)
        return int(found["Attributes"][names[0]]), int(found["Attributes"][names[1]])

    def table(self, key: str = "task_id", kind: str = "S", sort: str = "") -> str:
        name = f"table-{next(_numbers)}"
        keys = [(key, "HASH")] + ([(sort, "RANGE")] if sort else [])
        self.client("dynamodb").create_table(
            TableName=name,
            KeySchema=[{"AttributeName": part, "KeyType": role} for part, role in keys],
            AttributeDefinitions=[{"AttributeName": part, "AttributeType": kind} for part, _ in keys],
            BillingMode="PAY_PER_REQUEST",
        )
        return name

    def state_table(self) -> str:
        """HTC-Grid's, with its two indexes."""
        name = f"table-{next(_numbers)}"
        aws_server.make_state_table(self.client("dynamodb"), name)
        return name

    def items(self, table: str) -> dict[str, Any]:
        found = self.client("dynamodb").scan(TableName=table)["Items"]
        return {item["task_id"]["S"]: item for item in found}

    def bucket(self) -> str:
        name = f"bucket-{next(_numbers)}"
        self.client("s3").create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
        return name

    def objects(self, bucket: str) -> dict[str, bytes]:
        s3 = self.client("s3")
        keys = [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket).get("Contents", [])]
        return {key: s3.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}


@pytest.fixture(autouse=True, scope="session")
def _one_reader_of_service_models() -> Iterator[None]:
    """Each session of the SDK reads its descriptions of the services anew, which is half of what a test takes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.session, "create_loader", functools.cache(botocore.session.create_loader))
        yield


def _serve() -> Aws:
    aws_server.put_right()
    return Aws(*aws_server.serve())


@pytest.fixture(scope="session")
def aws() -> Iterator[Aws]:
    served = _serve()
    yield served
    served.server.stop()


@pytest.fixture
def own_aws(aws: Aws, request: pytest.FixtureRequest) -> Iterator[Aws]:
    """A server of its own for a test that stops it, with the same state behind it."""
    if "went_away" not in request.node.name:
        yield aws
        return
    served = _serve()
    yield served
    if served.server._server and served.server._thread and served.server._thread.is_alive():
        served.server.stop()


class WatchedLock:
    """A lock that says when anybody wants it."""

    def __init__(self, wanted: threading.Event) -> None:
        self._lock, self._wanted = threading.Lock(), wanted

    def __enter__(self) -> None:
        self._wanted.set()
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


@pytest.fixture
def return_in_mid_extend() -> Callable[[Any, Sequence[Any], float], list[float]]:
    """Extend by a minute, and return with a delay while the request that extends is just being made.

    Returns for how long the messages were hidden, in order.
    """

    def act(source: Any, leases: Sequence[Any], delay: float) -> list[float]:
        wanted = threading.Event()
        hidden: list[float] = []
        queue = source._queues[0]
        change_visibility = queue.change_visibility

        def return_to_pending() -> None:
            source.nack(leases, delay)
            wanted.set()  # where nothing holds it up

        other = threading.Thread(target=return_to_pending)

        def spy(seconds: dict[str, float]) -> Any:
            if threading.current_thread() is not other:
                wanted.clear()
                other.start()
                assert wanted.wait(60)
            hidden.extend(seconds.values())
            return change_visibility(seconds)

        source._leases.changing_visibility = WatchedLock(wanted)
        queue.change_visibility = spy
        source.extend(leases, 60)
        other.join()
        return hidden

    return act


@pytest.fixture(scope="session")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed: apt-get install redis-server")
    folder = tmp_path_factory.mktemp("redis")
    deadline = time.monotonic() + 60
    while True:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--requirepass", "redis-secret", "--save", ""]
        with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL) as process:
            if _is_up(port, process, deadline):
                yield port
                process.terminate()
                return


def _is_up(port: int, process: subprocess.Popen[bytes], deadline: float) -> bool:
    """Once it answers; False where it has ended, as another program was faster to take the port."""
    client = redis.Redis(port=port, password="redis-secret")
    while process.poll() is None:
        assert time.monotonic() < deadline, "redis-server did not start"
        with contextlib.suppress(redis.RedisError):
            # A server of another worker has the same password.
            if client.info("server")["process_id"] == process.pid:
                client.close()
                return True
        time.sleep(0.02)
    client.close()
    return False


# --- HTC-Grid's client, submit function, watchdog and cancel function, from the protocol's description ---


def partition(session: str) -> int:
    return int(hashlib.md5(session.encode()).hexdigest(), 16) % 32


@dataclass
class HtcGrid:
    """A grid that runs: its file, and what its own parts do to queue, table and data plane."""

    aws: Aws
    config_file: Path
    table: str
    queues: Sequence[str]
    bucket: str = ""
    redis: Any = None
    storage: str = "S3"
    sessions: dict[str, list[str]] = field(default_factory=dict)

    def submit(self, events: Sequence[Any], priority: int = 0, session: str = "") -> list[str]:
        """Inputs, then rows, then messages; returns the tasks' ids."""
        session = session or str(uuid.uuid1())
        ids = [f"{session}_{index}" for index in range(len(events))]
        for task_id, event in zip(ids, events, strict=True):
            self.put(f"{task_id}-input", json.dumps(event).encode())
        self.enqueue(ids, session, priority)
        return ids

    def enqueue(self, ids: Sequence[str], session: str, priority: int = 0) -> None:
        self.sessions.setdefault(session, []).extend(ids)
        for task_id in ids:
            row = self.row(task_id, session, "pending", priority)
            self.write(row)
            stats = {"stage1_grid_api_01_task_creation_tstmp": {"label": " ", "tstmp": 1}}
            self.aws.send(self.queues[priority], json.dumps({**row, "stats": stats}))

    def row(self, task_id: str, session: str, state: str, priority: int = 0, owner: str = "None") -> dict[str, Any]:
        return {
            "session_id": session,
            "task_id": task_id,
            "parent_session_id": session,
            "submission_timestamp": int(time.time() * 1000),
            "task_completion_timestamp": 0,
            "task_status": f"{state}{partition(session)}",
            "task_owner": owner,
            "retries": 0,
            "task_definition": "none",
            "sqs_handler_id": "None",
            "heartbeat_expiration_timestamp": 0,
            "task_priority": priority,
        }

    def write(self, row: dict[str, Any]) -> None:
        boto3.resource("dynamodb", endpoint_url=self.aws.url, region_name=REGION).Table(self.table).put_item(Item=row)

    def read(self, task_id: str) -> dict[str, Any]:
        table = boto3.resource("dynamodb", endpoint_url=self.aws.url, region_name=REGION).Table(self.table)
        return dict(table.get_item(Key={"task_id": task_id}, ConsistentRead=True)["Item"])

    def state(self, task_id: str) -> str:
        status = str(self.read(task_id)["task_status"])
        suffix = str(partition(task_id.split("_", maxsplit=1)[0]))
        assert status.endswith(suffix)
        return status[: -len(suffix)]

    def put(self, key: str, payload: bytes) -> None:
        body = base64.b64encode(payload)
        if "S3" in self.storage:
            self.aws.client("s3").put_object(Bucket=self.bucket, Key=key, Body=body)
        if "REDIS" in self.storage:
            self.redis.set(key, body)

    def get(self, key: str) -> str:
        """As the client reads an output: from Redis, else from S3."""
        body = self.redis.get(key) if "REDIS" in self.storage else None
        if body is None:
            body = self.aws.client("s3").get_object(Bucket=self.bucket, Key=key)["Body"].read()
        return base64.b64decode(body).decode()

    def results(self, session: str) -> dict[str, Any]:
        """What the client gets: outputs of finished tasks, ids of failed and cancelled ones; done when all are over."""
        states: dict[str, list[str]] = {"finished": [], "failed": [], "cancelled": []}
        for task_id in self.sessions[session]:
            states.get(self.state(task_id), []).append(task_id)
        outputs = {task_id: json.loads(self.get(f"{task_id}-output")) for task_id in states["finished"]}
        done = sum(map(len, states.values())) == len(self.sessions[session])
        return {**states, "outputs": outputs, "done": done}

    def cancel(self, session: str) -> None:
        for task_id in self.sessions[session]:
            if self.state(task_id) in ("pending", "processing"):
                row = self.read(task_id)
                self.write({**row, "task_status": f"cancelled{partition(session)}", "task_owner": "None"})

    def watchdog(self) -> None:
        """Return tasks whose heartbeat has expired."""
        sqs = self.aws.client("sqs")
        for task_id in [task_id for ids in self.sessions.values() for task_id in ids]:
            row = self.read(task_id)
            if self.state(task_id) == "processing" and row["heartbeat_expiration_timestamp"] < int(time.time()):
                again = {"task_status": f"pending{partition(row['session_id'])}", "task_owner": "None"}
                self.write({**row, **again, "retries": row["retries"] + 1})
                queue = self.queues[int(row["task_priority"])]
                sqs.change_message_visibility(
                    QueueUrl=self.aws.queue_url(queue), ReceiptHandle=row["sqs_handler_id"], VisibilityTimeout=0
                )


@pytest.fixture
def make_htc(aws: Aws, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., HtcGrid]]:
    """Call it for a grid: storage, priorities, lease in seconds, visibility in seconds, further keys of its file."""
    clients: list[Any] = []

    def make(storage: str = "S3", priorities: int = 0, lease: int = 30, visibility: int = 60, **keys: Any) -> HtcGrid:
        names = [f"htc-{uuid.uuid4().hex[:8]}"] if not priorities else []
        stem = f"htc-{uuid.uuid4().hex[:8]}"
        names = names or [f"{stem}__{priority}" for priority in range(priorities)]
        for name in names:
            aws.queue(name=name)
        table = aws.state_table()
        bucket = aws.bucket() if "S3" in storage else ""
        redis_client = None
        redis_url = ""
        if "REDIS" in storage:
            port = request.getfixturevalue("redis_port")
            redis_client = redis.Redis(port=port, password="redis-secret")
            clients.append(redis_client)
            redis_url = f"127.0.0.1:{port}"
        config = {
            "region": REGION,
            "sqs_endpoint": aws.url,
            "redis_url": redis_url,
            "redis_password": "redis-secret" if redis_url else "",
            "ddb_state_table": table,
            "task_ttl_expiration_offset_sec": lease,
            "task_ttl_refresh_interval_sec": 5,
            "agent_task_visibility_timeout_sec": visibility,
            "empty_task_queue_backoff_timeout_sec": 0.5,
            "task_input_passed_via_external_storage": 1,
            "s3_bucket": bucket,
            "grid_storage_service": storage,
            "task_queue_service": "PrioritySQS" if priorities else "SQS",
            "task_queue_config": f"{{'priorities':{priorities or 5}}}",
            "tasks_queue_name": names[0],
            "state_table_service": "DynamoDB",
            "state_table_config": "{'retries': {'max_attempts': 10}}",
            "enable_xray": "0",
            **keys,
        }
        file = tmp_path / f"Agent_config-{uuid.uuid4().hex[:6]}.tfvars.json"
        file.write_text(json.dumps(config))
        return HtcGrid(aws, file, table, names, bucket, redis_client, storage)

    yield make
    for client in clients:
        client.close()
