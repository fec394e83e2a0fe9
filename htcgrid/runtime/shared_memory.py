"""A page of memory that a worker shares with its supervisor, and that outlives the worker.

The worker notes on it which task it runs, and keeps there the answers that it has not sent yet, so that no answer is lost
when a later handler kills the process. The supervisor notes on it which tasks it recalls before the worker begins them. Each
side writes only its own fields.
"""

import struct

SIZE = 1 << 18

NOTE = struct.Struct("=QQQ")
"""By the worker, at 0: the bytes kept in the outbox, the start of the last task (monotonic ns), the
sequence number of the one it runs (0: none). Fields are written in this order, and read in the other, so
that a reader that sees a task running sees its start too, wherever the writer was interrupted."""

RUNNING = struct.Struct("=Q")
RUNNING_AT = 16

RECALL = struct.Struct("=QQ")
"""By the supervisor, at `RECALL_AT`: sequence numbers from the first up to, not including, the second."""

RECALL_AT = 64

READING_AT = 96
"""By the supervisor, a byte: 1 while it reads the log. The worker neither begins a task meanwhile, so that what is read is
of the task that is noted, nor reads the log itself, so that what was printed stays in order."""

TAKING_AT = 8 + READING_AT
"""By the worker, a byte: 1 while it reads the log, or waits to. The supervisor then leaves it to the worker."""

READS = struct.Struct("=Q")
READS_AT = 80
"""By the supervisor, where it takes all that is printed: how often it has begun or ended to read the log. Odd: it reads."""

MARK_SEQUENCE = struct.Struct("=Q")
"""Behind each mark in the log: the sequence number of the task that has printed what stands before the mark."""

OUTBOX_AT = 128
OUTBOX_SIZE = SIZE - OUTBOX_AT
