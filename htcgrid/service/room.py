"""Limits how many bytes of requests, events and answers are held at once."""

import threading
from typing import Self

from htcgrid.service import api_errors


class Room:
    """A limit of bytes. Any thread may call. `take` raises `TooManyRequests` if the limit would be exceeded.

    Bytes that are taken from a room are taken from the room around it, too.
    """

    def __init__(self, size: int, around: "Room | None" = None) -> None:
        self._free = size
        self._around = around
        self._lock = threading.Lock()

    def take(self, size: int) -> None:
        if self._around is not None:
            self._around.take(size)
        with self._lock:
            if size <= self._free:
                self._free -= size
                return
        if self._around is not None:
            self._around.release(size)
        raise api_errors.TooManyRequests("Rate Exceeded.")

    def take_held(self, size: int) -> None:
        """Count bytes that are already held, even over the limit: `take` is then refused until enough are released."""
        if self._around is not None:
            self._around.take_held(size)
        with self._lock:
            self._free -= size

    def release(self, size: int) -> None:
        with self._lock:
            self._free += size
        if self._around is not None:
            self._around.release(size)


class Share:
    """The bytes that one call has taken from a room; they are released when the call is over."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._room.release(self._size)
        self._size = 0

    def take(self, size: int) -> None:
        self._room.take(size)
        self._size += size

    def take_held(self, size: int) -> None:
        self._room.take_held(size)
        self._size += size
