"""Bugs that were written into our own plugins by someone who knew the interface and had not read the kit."""

from __future__ import annotations

from mutants_subjects import Mutant

KINDS = {"source": "source: written blind", "sink": "sink: written blind", "plane": "plane: written blind"}


def _bug(plugin: str, kind: str, name: str, *edits: tuple[str, str, str]) -> Mutant:
    return Mutant(plugin, KINDS[kind], name, edits=edits)


BLIND = (
    _bug(
        "sqlite source",
        "source",
        "a nack does not check the attempt, so a late one returns the new holder's lease",
        (
            "htcgrid/builtin/sqlite_statements.py",
            "RETURN = \"UPDATE queue SET state = 'ready', due = NULL WHERE seq = ? AND attempt = ? AND state = 'leased'\"",
            "RETURN = \"UPDATE queue SET state = 'ready', due = NULL WHERE seq = ? AND state = 'leased'\"",
        ),
        (
            "htcgrid/builtin/sqlite_source.py",
            "connection.executemany(sql.RETURN, map(_receipt, leases))",
            "connection.executemany(sql.RETURN, (_receipt(lease)[:1] for lease in leases))",
        ),
    ),
    _bug(
        "sqlite source",
        "source",
        "an extend never shortens a lease",
        (
            "htcgrid/builtin/sqlite_statements.py",
            "EXTEND = \"UPDATE queue SET due = ? WHERE seq = ? AND attempt = ? AND state = 'leased'\"",
            "EXTEND = \"UPDATE queue SET due = max(due, ?) WHERE seq = ? AND attempt = ? AND state = 'leased'\"",
        ),
    ),
    _bug(
        "sqlite source",
        "source",
        "a second cancel of a session does not return what the first one cancelled",
        (
            "htcgrid/builtin/sqlite_statements.py",
            "WHERE q.seq > ? AND q.session = ? AND q.state <> 'dead' ORDER BY q.seq LIMIT ?",
            "WHERE q.seq > ? AND q.session = ? AND q.state IN ('ready', 'delayed', 'leased') ORDER BY q.seq LIMIT ?",
        ),
    ),
    _bug(
        "sqlite source",
        "source",
        "a receive on an empty queue returns at once, whether it drains or not",
        (
            "htcgrid/builtin/sqlite_source.py",
            "if left <= 0 or (self.config.drain and due is None):",
            "if left <= 0 or due is None:",
        ),
    ),
    _bug(
        "sqlite source",
        "source",
        "exhausted takes the time 0 of a ready task for none",
        (
            "htcgrid/builtin/sqlite_source.py",
            "return self.config.drain and self._next_due() is None",
            "return self.config.drain and not self._next_due()",
        ),
    ),
    _bug(
        "sqlite source",
        "source",
        "stats count a task whose delay is over as waiting and as delayed",
        ("htcgrid/builtin/sqlite_stats.py", "sum(state = 'delayed' AND due > :now),", "sum(state = 'delayed'),"),
    ),
    _bug(
        "sqlite source",
        "source",
        "a task put again with its attributes in another order is refused",
        (
            "htcgrid/builtin/sqlite_source.py",
            "(attributes_of(there[0]), there[1]) != (dict(task.attributes), task.payload)",
            "there != (text_of(task.attributes), task.payload)",
        ),
    ),
    _bug(
        "sqlite source",
        "source",
        "the numbers of done tasks are used again once the queue is empty",
        (
            "htcgrid/builtin/sqlite_statements.py",
            "LAST_SEQ = \"SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'tasks'\"",
            'LAST_SEQ = "SELECT coalesce(max(seq), 0) FROM tasks"',
        ),
    ),
    _bug(
        "sqlite source",
        "source",
        "a redrive that is repeated replaces the task of the same generation",
        (
            "htcgrid/builtin/sqlite_source.py",
            "attributes_of(row[1]))) < generation_of(task):",
            "attributes_of(row[1]))) <= generation_of(task):",
        ),
    ),
    _bug(
        "sqlite source",
        "source",
        "an extend does not look at the state, so a cancelled task counts as kept",
        (
            "htcgrid/builtin/sqlite_statements.py",
            "EXTEND = \"UPDATE queue SET due = ? WHERE seq = ? AND attempt = ? AND state = 'leased'\"",
            'EXTEND = "UPDATE queue SET due = ? WHERE seq = ? AND attempt = ?"',
        ),
    ),
    _bug(
        "sqlite source",
        "source",
        "a late ack removes the dead letter",
        (
            "htcgrid/builtin/sqlite_statements.py",
            "DONE = \"DELETE FROM queue WHERE seq IN (SELECT value FROM json_each(?)) AND state <> 'dead'\"",
            'DONE = "DELETE FROM queue WHERE seq IN (SELECT value FROM json_each(?))"',
        ),
    ),
    _bug(
        "sqlite source",
        "source",
        "a file that was removed while in use is not noticed",
        (
            "htcgrid/builtin/sqlite_store.py",
            '        # SQLite would go on writing into a file that has lost its name, and all of it would be lost.\n        if self._now_there() != self._identity:\n            raise Rejected(\n                f"{self.path}: the file was removed or replaced while it was in use; put it back and start again"\n            )\n',
            "",
        ),
    ),
    _bug(
        "sqlite sink",
        "sink",
        "stored misses failures of the task's own generation",
        (
            "htcgrid/builtin/sqlite_sink.py",
            "if is_answer or generation >= generations[task_id]]",
            "if is_answer or generation > generations[task_id]]",
        ),
    ),
    _bug(
        "sqlite sink",
        "sink",
        "a redriven result keeps the number of the failure that it replaces",
        (
            "htcgrid/builtin/sqlite_sink.py",
            "number = (SELECT max(number) + 1 FROM results), session = excluded.session,",
            "session = excluded.session,",
        ),
    ),
    _bug(
        "sqlite sink",
        "sink",
        "a result without init_ms is read with 0.0",
        ("htcgrid/builtin/sqlite_sink.py", "        init_ms=init,\n", "        init_ms=init or 0.0,\n"),
    ),
    _bug(
        "sqlite sink",
        "sink",
        "stats count only answers as stored",
        (
            "htcgrid/builtin/sqlite_stats.py",
            '"SELECT count(*) FROM results").fetchone()',
            '"SELECT count(*) FROM results WHERE failure IS NULL").fetchone()',
        ),
    ),
    _bug(
        "sqlite sink",
        "sink",
        "one result that SQLite cannot hold refuses its whole batch",
        (
            "htcgrid/builtin/sqlite_sink.py",
            "refused = _one_by_one(connection, rows)",
            "refused = [row[0] for row in rows]",
        ),
    ),
    _bug(
        "sqlite sink",
        "sink",
        "what wait_for_more has seen is shared by all threads",
        ("htcgrid/builtin/sqlite_sink.py", "import threading\n", ""),
        (
            "htcgrid/builtin/sqlite_sink.py",
            "from pathlib import Path\n",
            "from pathlib import Path\nfrom types import SimpleNamespace\n",
        ),
        ("htcgrid/builtin/sqlite_sink.py", "self._seen = threading.local()", "self._seen = SimpleNamespace()"),
    ),
    _bug(
        "sqlite sink",
        "sink",
        "close leaves the watch of the file open",
        ("htcgrid/builtin/sqlite_store.py", "        self.changes.close()\n", ""),
    ),
    _bug(
        "redis source",
        "source",
        "what is returned stays the consumer's own, so a late extend takes it back",
        (
            "examples/plugins/redis/htcgrid_redis/source.py",
            "self._keep_for(leases, delay, _RETURNED)",
            "self._keep_for(leases, delay, self._consumer)",
        ),
    ),
    _bug(
        "redis source",
        "source",
        "the attempt is not compared, so a late nack of a lost lease returns this consumer's new one",
        (
            "examples/plugins/redis/htcgrid_redis/source.py",
            "  if held and held[2] == ARGV[2] and held[4] == tonumber(ARGV[i + 1]) then",
            "  if held and held[2] == ARGV[2] then",
        ),
    ),
    _bug(
        "redis source",
        "source",
        "a receive that is not to wait tells Redis to block for ever",
        (
            "examples/plugins/redis/htcgrid_redis/source.py",
            "block = max(1, round(wait * 1000)) if wait > 0 else None  # Redis waits for ever when told 0",
            "block = max(0, round(wait * 1000))",
        ),
    ),
    _bug(
        "redis source",
        "source",
        "a waiting receive blocks for all its time on new entries only",
        (
            "examples/plugins/redis/htcgrid_redis/source.py",
            "self._fresh(max_tasks, min(left, _LOOK_SECONDS))",
            "self._fresh(max_tasks, left)",
        ),
    ),
    _bug(
        "redis source",
        "source",
        "the search for lapsed entries begins at the first one each time",
        (
            "examples/plugins/redis/htcgrid_redis/source.py",
            "self._cursor, entries = found[0], found[1]",
            "entries = found[1]",
        ),
    ),
    _bug(
        "redis source",
        "source",
        "a redrive that is repeated adds the task again",
        (
            "examples/plugins/redis/htcgrid_redis/source.py",
            "if before and tonumber(before) >= tonumber(ARGV[4]) then return 0 end",
            "if before and tonumber(before) > tonumber(ARGV[4]) then return 0 end",
        ),
    ),
    _bug(
        "redis source",
        "source",
        "fractions of a second of leases and delays are dropped",
        (
            "examples/plugins/redis/htcgrid_redis/source.py",
            "idle = max(0, self._horizon_ms - round(seconds * 1000))",
            "idle = max(0, self._horizon_ms - int(seconds) * 1000)",
        ),
    ),
    _bug(
        "redis source",
        "source",
        "an entry whose attributes are not JSON makes receive fail",
        (
            "examples/plugins/redis/htcgrid_redis/source.py",
            "except (KeyError, ValueError) as error:",
            "except KeyError as error:",
        ),
    ),
    _bug(
        "redis sink",
        "sink",
        "one answer that is too large keeps the others of its batch from being stored",
        (
            "examples/plugins/redis/htcgrid_redis/sink.py",
            "if len(each.outcome.payload) > self.config.max_bytes]\n",
            "if len(each.outcome.payload) > self.config.max_bytes]\n        if large:\n            message = f\"Larger than [sink] max_bytes = {self.config.max_bytes}: the results of {', '.join(large)}.\"\n            raise Rejected(message, large)\n",
        ),
        (
            "examples/plugins/redis/htcgrid_redis/sink.py",
            "            batch.execute()\n        if large:\n            message = f\"Larger than [sink] max_bytes = {self.config.max_bytes}: the results of {', '.join(large)}.\"\n            raise Rejected(message, large)\n",
            "            batch.execute()\n",
        ),
    ),
    _bug(
        "redis sink",
        "sink",
        "a task that succeeds after a redrive stays among the failures",
        (
            "examples/plugins/redis/htcgrid_redis/sink.py",
            "generation) else redis.call('HDEL', KEYS[2], ARGV[4]) end",
            "generation) end",
        ),
    ),
    _bug(
        "redis sink",
        "sink",
        "the log is kept as text",
        (
            "examples/plugins/redis/htcgrid_redis/sink.py",
            'base64.b64encode(outcome["log_tail"]).decode()',
            'outcome["log_tail"].decode(errors="replace")',
        ),
        (
            "examples/plugins/redis/htcgrid_redis/sink.py",
            'base64.b64decode(outcome["log_tail"])',
            'outcome["log_tail"].encode()',
        ),
    ),
    _bug(
        "redis sink",
        "sink",
        "failed lists only the first page of the failures",
        (
            "examples/plugins/redis/htcgrid_redis/sink.py",
            "names: Any = self._open.hscan_iter(self._failures, count=_AT_ONCE)",
            "names: Any = self._open.hscan(self._failures, count=_AT_ONCE)[1].items()",
        ),
    ),
    _bug(
        "redis sink",
        "sink",
        "a timeout of the connection passes through as it is",
        (
            "examples/plugins/redis/htcgrid_redis/server.py",
            "except (redis.ConnectionError, redis.TimeoutError) as error:",
            "except redis.ConnectionError as error:",
        ),
    ),
    _bug(
        "redis sink",
        "sink",
        "the error of a wrong address shows the address with its password",
        (
            "examples/plugins/redis/htcgrid_redis/server.py",
            'f"url is no address of a Redis server: {error}. Write',
            'f"{config.url.get_secret_value()!r} is no address of a Redis server: {error}. Write',
        ),
    ),
    _bug(
        "process",
        "plane",
        "the wait for a running task does not end at its timeout",
        (
            "htcgrid/runtime/environment.py",
            "        return min(self._look_seconds(), max(0.001, left))\n",
            "        return self._look_seconds() if left > 0 else 0.001\n",
        ),
    ),
    _bug(
        "process",
        "plane",
        "an attribute named attempt replaces the number of the attempt",
        (
            "htcgrid/runtime/context.py",
            '_KNOWN = frozenset({"task_id", "session_id", "attempt"})',
            '_KNOWN = frozenset({"task_id", "session_id"})',
        ),
    ),
    _bug(
        "process",
        "plane",
        "what was printed during the initialisation is in the log of each later task",
        (
            "htcgrid/runtime/framed.py",
            'parts = [self._printed.pop(number, b"") for number in (0, sequence)]',
            'parts = [self._printed.get(number, b"") for number in (0, sequence)]',
        ),
    ),
    _bug(
        "process",
        "plane",
        "the end of one environment ends what the others run",
        ("htcgrid/runtime/fork_server_main.py", "end_all(keep=workers)", "end_all(keep=set())"),
    ),
    _bug(
        "process",
        "plane",
        "the raw wait status is taken for the exit status",
        (
            "htcgrid/runtime/fork_server_main.py",
            "    return os.waitstatus_to_exitcode(status)\n",
            "    return status\n",
        ),
    ),
    _bug(
        "process",
        "plane",
        "the billed time is rounded, not rounded up",
        (
            "htcgrid/runtime/framed.py",
            "billed_ms, init_ms = ceil(duration_ms), None",
            "billed_ms, init_ms = round(duration_ms), None",
        ),
    ),
    _bug(
        "process",
        "plane",
        "a call whose iteration is abandoned keeps its place for ever",
        (
            "htcgrid/runtime/pool.py",
            "            except Exception:\n                has_failed = True\n                raise\n            finally:\n                self._put_back(place, refill=not has_failed)\n",
            "            except Exception:\n                has_failed = True\n                self._put_back(place, refill=not has_failed)\n                raise\n            else:\n                self._put_back(place, refill=not has_failed)\n",
        ),
    ),
    _bug(
        "process",
        "plane",
        "close leaves the thread that watches memory",
        ("htcgrid/builtin/process.py", "        self._watch.close()\n", ""),
    ),
    _bug(
        "process",
        "plane",
        "a fork server that was killed is not replaced",
        (
            "htcgrid/builtin/process.py",
            "            if self._fork_server is not None and self._fork_server.has_ended():\n                self._fork_server.close()\n                self._fork_server = None\n            if self._fork_server is None:\n",
            "            if self._fork_server is None:\n",
        ),
    ),
    _bug(
        "process",
        "plane",
        "a cancel does not wake the thread that waits for the task",
        (
            "htcgrid/runtime/pool.py",
            "        self._idle.wake()\n        for environment in list(self._places):\n            if environment is not None:\n                environment.wake()\n",
            "        self._idle.wake()\n",
        ),
    ),
    _bug(
        "process",
        "plane",
        "an answer of exactly the limit is refused",
        (
            "htcgrid/runtime/worker.py",
            "        payload = result.encode() if isinstance(result, str) else result\n        if len(payload) > self._limit:\n",
            "        payload = result.encode() if isinstance(result, str) else result\n        if len(payload) >= self._limit:\n",
        ),
    ),
    _bug(
        "process",
        "plane",
        "Unavailable does not name the task that ran when the fork server ended",
        (
            "htcgrid/runtime/environment.py",
            "raise Unavailable(str(error), error.retry_after, begun=[lease.task.id]) from error",
            "raise Unavailable(str(error), error.retry_after) from error",
        ),
    ),
    _bug(
        "dynamodb",
        "sink",
        "of two results of a task in one batch only the last is written",
        (
            "plugins/aws/htcgrid_aws/dynamodb.py",
            "single.setdefault(result.task.id, []).append((result, item))",
            "single[result.task.id] = [(result, item)]",
        ),
    ),
    _bug(
        "dynamodb",
        "sink",
        "keys that DynamoDB has left unprocessed are not asked for again",
        (
            "plugins/aws/htcgrid_aws/dynamodb_table.py",
            '                before, left = len(left), answer.get("UnprocessedKeys", {}).get(self.name, {}).get("Keys", [])\n                if len(left) == before:\n                    raise Unavailable(f"dynamodb:BatchGetItem on table {self.name}: AWS throttles us (no key was read)")\n',
            "                left = []\n",
        ),
    ),
    _bug(
        "dynamodb",
        "sink",
        "a page without a failure is taken for the end of the table",
        (
            "plugins/aws/htcgrid_aws/dynamodb_table.py",
            '            if "LastEvaluatedKey" not in answer:\n',
            '            if not answer["Items"] or "LastEvaluatedKey" not in answer:\n',
        ),
    ),
    _bug(
        "dynamodb",
        "sink",
        "results that were throttled are noted as stored",
        (
            "plugins/aws/htcgrid_aws/stored_so_far.py",
            "from htcgrid.spi import HtcgridError, Result, Unavailable",
            "from htcgrid.spi import Rejected, Result, Unavailable",
        ),
        (
            "plugins/aws/htcgrid_aws/stored_so_far.py",
            "if not isinstance(answer, HtcgridError)}",
            "if not isinstance(answer, Rejected)}",
        ),
    ),
    _bug(
        "dynamodb",
        "sink",
        "a failure is replaced by a result of its own generation",
        ("plugins/aws/htcgrid_aws/dynamodb.py", "OR generation < :generation)", "OR generation <= :generation)"),
    ),
)
