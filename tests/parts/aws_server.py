"""SQS, DynamoDB and S3 by moto over HTTP, for a test or a measurement in another process: prints the address, serves
until it is killed."""

import signal
import time

import moto.sqs.models
from moto.server import ThreadedMotoServer

# Moto asks the time for every message of a queue at every call, by a way of 10 microseconds.
moto.sqs.models.unix_time = time.time  # type: ignore[attr-defined]
moto.sqs.models.unix_time_millis = lambda: time.time() * 1000  # type: ignore[attr-defined]

server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
host, port = server.get_host_and_port()
print(f"http://{host}:{port}", flush=True)  # noqa: T201
signal.pause()
