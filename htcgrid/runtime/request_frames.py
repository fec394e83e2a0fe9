"""What is sent to a Python worker for each lease; see `frames`. It runs tens of thousands of times a second."""

from collections.abc import Iterable, Iterator, Mapping
from json.encoder import encode_basestring_ascii as quote
from math import ceil

from htcgrid.runtime import frames, identity, trace
from htcgrid.runtime.context import around_the_id
from htcgrid.spi import Lease


def request_frames(numbered: Iterable[tuple[int, Lease]], timeout: float, piece: int) -> Iterator[bytes]:
    """The frames of these leases, which come with their sequence numbers, in pieces of more than `piece` bytes.

    Tasks of one session often have the same attributes: what is made from them is made once.
    """
    attributes: Mapping[str, str] = {}
    attempt, traced, before, after = -1, "", "", ""
    parts: list[bytes] = []
    size = 0
    timeout_ms, pack, request_id = ceil(timeout * 1000), frames.REQUEST.pack, identity.request_id
    for sequence, lease in numbered:
        task = lease.task
        if lease.attempt != attempt or task.attributes != attributes:
            attributes, attempt = task.attributes, lease.attempt
            traced = trace.given(attributes)
            before, after = around_the_id(attributes, attempt)
        task_id, payload = task.id, task.payload
        context = f"{before}{quote(task_id)}{after}" if after else before
        head = pack(sequence, timeout_ms, len(traced), len(context), len(payload))  # both are ASCII
        head += f"{request_id(task_id)}{traced}{context}".encode()
        parts += head, payload
        size += len(head) + len(payload)
        if size > piece:
            yield b"".join(parts)
            parts.clear()
            size = 0
    yield b"".join(parts)
