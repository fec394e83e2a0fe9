"""The C library's heaps, of which each thread has its own by default."""

import ctypes

_M_ARENA_MAX = -8
_HEAPS = 2


def share() -> None:
    """Make all threads of this process share a few heaps, if the C library has several (glibc; musl has one).

    Memory that is freed in one heap is not used by another: 500 tasks of 1 MB from SQS to S3, on ten threads, took 250 MB
    at the peak instead of 165 MB.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, _HEAPS)
