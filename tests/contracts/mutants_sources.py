"""Bugs of sources. Bodies are of a subclass that takes the place of the plugin's class."""

from __future__ import annotations

from mutants_subjects import Mutant

MEMORY, SQLITE, JSONL, SQS, REDIS = "memory source", "sqlite source", "jsonl source", "sqs", "redis source"
_MEMORY_FILE, _SQL_FILE, _SQLITE_FILE, _JSONL_FILE = (
    f"htcgrid/builtin/{name}.py" for name in ("memory", "sqlite_statements", "sqlite_source", "jsonl_source")
)


def _bug(kind: str, name: str, plugins: tuple[str, ...], body: str) -> list[Mutant]:
    return [Mutant(plugin, kind, name, body) for plugin in plugins]


def _edit(plugin: str, kind: str, name: str, file: str, before: str, after: str) -> Mutant:
    return Mutant(plugin, kind, name, edits=((file, before, after),))


BATCH = "source: only a part of a batch"
SECONDS = "source: seconds"
WAITS = "source: waits"
ERRORS = "source: errors"
LEASES = "source: leases"
CONTENT = "source: what arrives"
QUEUE = "source: put, cancel, redrive"
COUNTS = "source: counts and dead letters"
ENDS = "source: the end"
ANY = "any: resources and secrets"

SOURCES = (
    # --- batches ---
    *_bug(
        BATCH, "ack acks the first only", (MEMORY, SQLITE, SQS), "def ack(self, leases):\n    super().ack(leases[:1])"
    ),
    *_bug(
        BATCH,
        "nack returns the first only",
        (MEMORY, SQLITE, REDIS),
        "def nack(self, leases, delay=0.0):\n    super().nack(leases[:1], delay)",
    ),
    *_bug(
        BATCH,
        "nack forgets the last",
        (JSONL,),
        "def nack(self, leases, delay=0.0):\n    super().nack(leases[:-1] or leases, delay)",
    ),
    *_bug(
        BATCH,
        "extend extends the first only",
        (MEMORY, SQLITE, SQS),
        "def extend(self, leases, seconds):\n    return super().extend(leases[:1], seconds)",
    ),
    *_bug(
        BATCH,
        "extend names one lost lease at most",
        (SQLITE, MEMORY),
        "def extend(self, leases, seconds):\n    return list(super().extend(leases, seconds))[:1]",
    ),
    *_bug(
        BATCH,
        "one lost lease makes all of the batch lost",
        (SQLITE,),
        """
        def extend(self, leases, seconds):
            lost = super().extend(leases, seconds)
            return [lease.task.id for lease in leases] if lost else lost
    """,
    ),
    *_bug(
        BATCH,
        "nack gives up at the first lease that is lost",
        (MEMORY, SQLITE),
        """
        def nack(self, leases, delay=0.0):
            for lease in leases:
                if super().extend([lease], 5):
                    return
                super().nack([lease], delay)
    """,
    ),
    *_bug(
        BATCH,
        "dead_letter takes the first only",
        (SQLITE, SQS),
        "def dead_letter(self, leases, reason):\n    super().dead_letter(leases[:1], reason)",
    ),
    *_bug(
        BATCH,
        "cancel stops the first id only",
        (MEMORY, SQLITE),
        "def cancel(self, session_id=None, task_ids=()):\n    return super().cancel(session_id, list(task_ids)[:1])",
    ),
    *_bug(BATCH, "put takes the first hundred only", (SQLITE,), "def put(self, tasks):\n    super().put(tasks[:100])"),
    *_bug(
        BATCH,
        "redrive takes the first only",
        (SQLITE, REDIS),
        "def redrive(self, tasks):\n    super().redrive(tasks[:1])",
    ),
    _edit(
        MEMORY,
        BATCH,
        "receive ignores max_batch",
        _MEMORY_FILE,
        "self._next_leases(min(max_tasks, self.max_batch))",
        "self._next_leases(max_tasks)",
    ),
    _edit(
        SQLITE,
        BATCH,
        "receive ignores max_batch",
        _SQLITE_FILE,
        "self._take(min(max_tasks, self.max_batch))",
        "self._take(max_tasks)",
    ),
    # --- seconds ---
    *_bug(
        SECONDS,
        "extend halves",
        (MEMORY, SQLITE, SQS),
        "def extend(self, leases, seconds):\n    return super().extend(leases, seconds / 2)",
    ),
    *_bug(
        SECONDS,
        "extend doubles",
        (MEMORY, SQLITE, REDIS),
        "def extend(self, leases, seconds):\n    return super().extend(leases, seconds * 2)",
    ),
    *_bug(
        SECONDS,
        "extend ignores its seconds",
        (SQLITE, SQS),
        "def extend(self, leases, seconds):\n    return super().extend(leases, self.lease_seconds)",
    ),
    *_bug(
        SECONDS,
        "extend takes milliseconds",
        (SQLITE,),
        "def extend(self, leases, seconds):\n    return super().extend(leases, seconds * 1000)",
    ),
    _edit(
        SQLITE,
        SECONDS,
        "extend adds to what is left",
        _SQLITE_FILE,
        "            due = self._clock.now() + seconds\n            extended = connection.executemany(sql.EXTEND, ((due, *_receipt(lease)) for lease in leases)).rowcount",
        "            extended = connection.executemany(\"UPDATE queue SET due = due + ? WHERE seq = ? AND attempt = ? AND state = 'leased'\", ((seconds, *_receipt(lease)) for lease in leases)).rowcount",
    ),
    _edit(
        MEMORY,
        SECONDS,
        "extend adds to what is left",
        _MEMORY_FILE,
        "self._until.update({lease.task.id: until for lease in leases if lease.task.id not in lost})",
        "self._until.update({lease.task.id: self._until[lease.task.id] + seconds for lease in leases if lease.task.id not in lost})",
    ),
    *_bug(
        SECONDS,
        "nack ignores its delay",
        (MEMORY, JSONL, SQS),
        "def nack(self, leases, delay=0.0):\n    super().nack(leases)",
    ),
    *_bug(
        SECONDS,
        "nack halves its delay",
        (MEMORY, SQLITE, JSONL),
        "def nack(self, leases, delay=0.0):\n    super().nack(leases, delay / 2)",
    ),
    *_bug(
        SECONDS,
        "nack doubles its delay",
        (MEMORY, SQLITE, REDIS),
        "def nack(self, leases, delay=0.0):\n    super().nack(leases, delay * 2)",
    ),
    *_bug(
        SECONDS,
        "nack delays the first of a batch only",
        (SQLITE,),
        "def nack(self, leases, delay=0.0):\n    super().nack(leases[:1], delay)\n    super().nack(leases[1:])",
    ),
    _edit(
        MEMORY,
        SECONDS,
        "a lease lasts twice as long as it says",
        _MEMORY_FILE,
        "now + self.config.lease_seconds",
        "now + 2 * self.config.lease_seconds",
    ),
    _edit(
        SQLITE,
        SECONDS,
        "a lease lasts half as long as it says",
        _SQLITE_FILE,
        "due = now + self.config.lease_seconds",
        "due = now + self.config.lease_seconds / 2",
    ),
    _edit(
        SQLITE,
        SECONDS,
        "a lease lasts twice as long as it says",
        _SQLITE_FILE,
        "due = now + self.config.lease_seconds",
        "due = now + self.config.lease_seconds * 2",
    ),
    # --- waits ---
    *_bug(
        WAITS,
        "receive waits half",
        (MEMORY, SQLITE, REDIS),
        "def receive(self, max_tasks, wait):\n    return super().receive(max_tasks, wait / 2)",
    ),
    *_bug(
        WAITS,
        "receive waits twice as long",
        (SQLITE, REDIS),
        "def receive(self, max_tasks, wait):\n    return super().receive(max_tasks, wait * 2)",
    ),
    *_bug(
        WAITS,
        "receive waits a second at least",
        (SQLITE,),
        "def receive(self, max_tasks, wait):\n    return super().receive(max_tasks, max(1.0, wait))",
    ),
    *_bug(
        WAITS,
        "receive never waits",
        (SQLITE, REDIS),
        "def receive(self, max_tasks, wait):\n    return super().receive(max_tasks, 0)",
    ),
    *_bug(
        WAITS,
        "receive waits for ever",
        (SQLITE,),
        """
        def receive(self, max_tasks, wait):
            while not (found := super().receive(max_tasks, 1)):
                pass
            return found
    """,
    ),
    *_bug(
        WAITS,
        "receive looks once and then sleeps",
        (MEMORY, SQLITE),
        """
        def receive(self, max_tasks, wait):
            found = super().receive(max_tasks, 0)
            if not found and not self.exhausted:
                time.sleep(wait)
                found = super().receive(max_tasks, 0)
            return found
    """,
    ),
    *_bug(
        WAITS,
        "receive looks every ten seconds",
        (SQLITE, REDIS),
        """
        def receive(self, max_tasks, wait):
            deadline = time.monotonic() + wait
            while not (found := super().receive(max_tasks, 0)) and (left := deadline - time.monotonic()) > 0:
                time.sleep(min(left, 10))
            return found
    """,
    ),
    *_bug(
        WAITS,
        "a receive that waits holds the lock that ack needs",
        (SQLITE, REDIS, SQS),
        """
        _one = threading.Lock()
        def receive(self, max_tasks, wait):
            with self._one:
                return super().receive(max_tasks, wait)
        def ack(self, leases):
            with self._one:
                super().ack(leases)
    """,
    ),
    *_bug(
        WAITS,
        "a receive that waits holds the lock that nack needs",
        (SQLITE,),
        """
        _one = threading.Lock()
        def receive(self, max_tasks, wait):
            with self._one:
                return super().receive(max_tasks, wait)
        def nack(self, leases, delay=0.0):
            with self._one:
                super().nack(leases, delay)
    """,
    ),
    *_bug(
        WAITS,
        "receive waits for a full batch",
        (SQLITE,),
        """
        def receive(self, max_tasks, wait):
            found, deadline = [], time.monotonic() + wait
            while len(found) < max_tasks and (left := deadline - time.monotonic()) > 0:
                found += super().receive(max_tasks - len(found), min(left, 0.1))
            return found or super().receive(max_tasks, 0)
    """,
    ),
    # --- errors ---
    *_bug(
        ERRORS,
        "receive swallows Unavailable",
        (REDIS, SQS),
        """
        def receive(self, max_tasks, wait):
            try:
                return super().receive(max_tasks, wait)
            except Unavailable:
                return ()
    """,
    ),
    *_bug(
        ERRORS,
        "ack swallows Unavailable",
        (REDIS, SQS),
        """
        def ack(self, leases):
            try:
                super().ack(leases)
            except Unavailable:
                pass
    """,
    ),
    *_bug(
        ERRORS,
        "nack swallows Unavailable",
        (REDIS,),
        """
        def nack(self, leases, delay=0.0):
            try:
                super().nack(leases, delay)
            except Unavailable:
                pass
    """,
    ),
    *_bug(
        ERRORS,
        "extend calls leases lost where it is Unavailable",
        (REDIS, SQS),
        """
        def extend(self, leases, seconds):
            try:
                return super().extend(leases, seconds)
            except Unavailable:
                return [lease.task.id for lease in leases]
    """,
    ),
    *_bug(
        ERRORS,
        "ack tries five times by itself",
        (REDIS,),
        """
        def ack(self, leases):
            for left in reversed(range(5)):
                try:
                    return super().ack(leases)
                except Unavailable:
                    if not left:
                        raise
                    time.sleep(3)
    """,
    ),
    *_bug(
        ERRORS,
        "extend raises the client's own error",
        (REDIS,),
        """
        def extend(self, leases, seconds):
            try:
                return super().extend(leases, seconds)
            except Unavailable as error:
                raise ConnectionError(str(error))
    """,
    ),
    *_bug(
        ERRORS,
        "put rejects where it is Unavailable",
        (SQS,),
        """
        def put(self, tasks):
            try:
                super().put(tasks)
            except Unavailable as error:
                raise Rejected(str(error))
    """,
    ),
    # --- leases ---
    _edit(
        SQLITE,
        LEASES,
        "a late nack returns the lease of another",
        _SQL_FILE,
        "RETURN = \"UPDATE queue SET state = 'ready', due = NULL WHERE seq = ? AND attempt = ? AND state = 'leased'\"",
        "RETURN = \"UPDATE queue SET state = 'ready', due = NULL WHERE seq = ? AND ? > 0 AND state = 'leased'\"",
    ),
    _edit(
        SQLITE,
        LEASES,
        "a late extend extends the lease of another",
        _SQL_FILE,
        "EXTEND = \"UPDATE queue SET due = ? WHERE seq = ? AND attempt = ? AND state = 'leased'\"",
        "EXTEND = \"UPDATE queue SET due = ? WHERE seq = ? AND ? > 0 AND state = 'leased'\"",
    ),
    _edit(
        MEMORY,
        LEASES,
        "a lease is known by its task alone",
        _MEMORY_FILE,
        "held is not None and held.receipt == lease.receipt and",
        "held is not None and",
    ),
    *_bug(
        LEASES,
        "extend hides what was lost",
        (MEMORY, REDIS),
        "def extend(self, leases, seconds):\n    super().extend(leases, seconds)\n    return ()",
    ),
    *_bug(
        LEASES,
        "the attempt is 2 at most",
        (MEMORY, SQLITE, REDIS),
        "def receive(self, max_tasks, wait):\n    return [replace(lease, attempt=min(2, lease.attempt)) for lease in super().receive(max_tasks, wait)]",
    ),
    *_bug(
        LEASES,
        "the attempt counts from 0",
        (SQS,),
        "def receive(self, max_tasks, wait):\n    return [replace(lease, attempt=lease.attempt - 1) for lease in super().receive(max_tasks, wait)]",
    ),
    *_bug(
        LEASES,
        "a second ack is loud",
        (SQLITE,),
        """
        _acked = frozenset()
        def ack(self, leases):
            ids = {lease.receipt for lease in leases}
            if ids & self._acked:
                raise KeyError("acked already")
            self._acked |= ids
            super().ack(leases)
    """,
    ),
    _edit(
        JSONL,
        LEASES,
        "a second nack returns the task twice",
        _JSONL_FILE,
        "if lease.attempt == self._attempts.get(lease.receipt, 1):",
        "if lease.attempt:",
    ),
    _edit(
        SQLITE,
        LEASES,
        "a nack is not counted",
        _SQL_FILE,
        "RETURN = \"UPDATE queue SET state = 'ready', due = NULL WHERE",
        "RETURN = \"UPDATE queue SET state = 'ready', due = NULL, attempt = attempt - 1 WHERE",
    ),
    *_bug(
        LEASES,
        "close forgets what was leased",
        (SQLITE,),
        """
        _out = ()
        def receive(self, max_tasks, wait):
            found = super().receive(max_tasks, wait)
            self._out = [*self._out, *found]
            return found
        def close(self):
            if self._out:
                super().ack(self._out)
                self._out = ()
            super().close()
    """,
    ),
    # --- what arrives ---
    *_bug(
        CONTENT,
        "payloads are parsed and written again",
        (JSONL, SQS),
        "def receive(self, max_tasks, wait):\n    return [replace(lease, task=replace(lease.task, payload=json.dumps(json.loads(lease.task.payload)).encode())) for lease in super().receive(max_tasks, wait)]",
    ),
    *_bug(
        CONTENT,
        "put strips payloads",
        (SQLITE, MEMORY),
        "def put(self, tasks):\n    super().put([replace(task, payload=task.payload.strip()) for task in tasks])",
    ),
    *_bug(
        CONTENT,
        "payloads are cut at a megabyte",
        (SQLITE, REDIS),
        "def receive(self, max_tasks, wait):\n    return [replace(lease, task=replace(lease.task, payload=lease.task.payload[:1_000_000])) for lease in super().receive(max_tasks, wait)]",
    ),
    *_bug(
        CONTENT,
        "escaped NULs are dropped",
        (SQLITE, JSONL),
        r"def receive(self, max_tasks, wait):"
        "\n"
        r"    return [replace(lease, task=replace(lease.task, payload=lease.task.payload.replace(b'\\u0000', b''))) for lease in super().receive(max_tasks, wait)]",
    ),
    *_bug(
        CONTENT,
        "text is normalised",
        (SQLITE, REDIS),
        "def receive(self, max_tasks, wait):\n    return [replace(lease, task=replace(lease.task, payload=unicodedata.normalize('NFC', lease.task.payload.decode()).encode())) for lease in super().receive(max_tasks, wait)]",
    ),
    *_bug(
        CONTENT,
        "line breaks become line feeds",
        (SQLITE,),
        r"def receive(self, max_tasks, wait):"
        "\n"
        r"    return [replace(lease, task=replace(lease.task, payload=lease.task.payload.replace(b'\r\n', b'\n'))) for lease in super().receive(max_tasks, wait)]",
    ),
    *_bug(
        CONTENT,
        "backslashes are unescaped once",
        (REDIS,),
        r"def receive(self, max_tasks, wait):"
        "\n"
        r"    return [replace(lease, task=replace(lease.task, payload=lease.task.payload.replace(b'\\\\', b'\\'))) for lease in super().receive(max_tasks, wait)]",
    ),
    *_bug(
        CONTENT,
        "attributes other than htcgrid's are dropped",
        (SQLITE, REDIS),
        "def receive(self, max_tasks, wait):\n    return [replace(lease, task=replace(lease.task, attributes={k: v for k, v in lease.task.attributes.items() if k in {'session_id', 'priority'}})) for lease in super().receive(max_tasks, wait)]",
    ),
    *_bug(
        CONTENT,
        "attributes' names are made small",
        (SQLITE,),
        "def receive(self, max_tasks, wait):\n    return [replace(lease, task=replace(lease.task, attributes={k.lower(): v for k, v in lease.task.attributes.items()})) for lease in super().receive(max_tasks, wait)]",
    ),
    *_bug(
        CONTENT,
        "attributes are stripped",
        (REDIS,),
        "def receive(self, max_tasks, wait):\n    return [replace(lease, task=replace(lease.task, attributes={k: v.strip() for k, v in lease.task.attributes.items()})) for lease in super().receive(max_tasks, wait)]",
    ),
    *_bug(
        CONTENT,
        "attributes are lost when a task comes again",
        (SQLITE,),
        "def receive(self, max_tasks, wait):\n    return [replace(lease, task=replace(lease.task, attributes=lease.task.attributes if lease.attempt == 1 else {})) for lease in super().receive(max_tasks, wait)]",
    ),
    *_bug(
        CONTENT,
        "ids are made small",
        (SQLITE,),
        "def put(self, tasks):\n    super().put([replace(task, id=task.id.lower()) for task in tasks])",
    ),
    # --- put, cancel, redrive ---
    *_bug(
        QUEUE,
        "put drops attributes",
        (SQS,),
        "def put(self, tasks):\n    super().put([replace(task, attributes={}) for task in tasks])",
    ),
    *_bug(
        QUEUE,
        "put parses payloads and writes them again",
        (SQS, SQLITE),
        "def put(self, tasks):\n    super().put([replace(task, payload=json.dumps(json.loads(task.payload)).encode()) for task in tasks])",
    ),
    _edit(
        SQLITE,
        QUEUE,
        "put takes other attributes for the same task",
        _SQLITE_FILE,
        "(attributes_of(there[0]), there[1]) != (dict(task.attributes), task.payload)",
        "there[1] != task.payload",
    ),
    _edit(
        SQLITE,
        QUEUE,
        "put takes another event for the same task",
        _SQLITE_FILE,
        "(attributes_of(there[0]), there[1]) != (dict(task.attributes), task.payload)",
        "there[0] != text_of(task.attributes)",
    ),
    *_bug(
        QUEUE,
        "put replaces a task that is there",
        (SQLITE,),
        """
        def put(self, tasks):
            with self._file.writing(durable=True) as connection:
                connection.executemany("DELETE FROM queue WHERE seq IN (SELECT seq FROM tasks WHERE id = ?)", [(task.id,) for task in tasks])
            super().put(tasks)
    """,
    ),
    *_bug(
        QUEUE,
        "put takes an id twice in one call",
        (SQLITE,),
        "def put(self, tasks):\n    super().put(list({task.id: task for task in tasks}.values()))",
    ),
    *_bug(
        QUEUE,
        "put is not all or none",
        (SQLITE,),
        "def put(self, tasks):\n    for task in tasks:\n        super().put([task])",
    ),
    *_bug(
        QUEUE,
        "put keeps tasks in memory until it is closed",
        (SQLITE,),
        """
        _kept = ()
        def put(self, tasks):
            self._kept = [*self._kept, *tasks]
        def receive(self, max_tasks, wait):
            self._flush()
            return super().receive(max_tasks, wait)
        def _flush(self):
            kept, self._kept = self._kept, ()
            if kept:
                super().put(kept)
        def close(self):
            self._flush()
            super().close()
    """,
    ),
    *_bug(
        QUEUE,
        "cancel names tasks that are not there",
        (MEMORY, SQLITE),
        "def cancel(self, session_id=None, task_ids=()):\n    return [*super().cancel(session_id, task_ids), *(Task(each, b'') for each in task_ids if each.startswith('contract-not'))]",
    ),
    *_bug(
        QUEUE,
        "cancel names the same task twice",
        (SQLITE,),
        "def cancel(self, session_id=None, task_ids=()):\n    return 2 * list(super().cancel(session_id, task_ids))",
    ),
    _edit(
        SQLITE,
        QUEUE,
        "cancel takes dead letters along",
        _SQL_FILE,
        "WHERE q.seq > ? AND q.session = ? AND q.state <> 'dead' ORDER BY q.seq LIMIT ?",
        "WHERE q.seq > ? AND q.session = ? ORDER BY q.seq LIMIT ?",
    ),
    _edit(
        SQLITE,
        QUEUE,
        "cancel leaves what is delayed",
        _SQL_FILE,
        "WHERE q.seq > ? AND q.session = ? AND q.state <> 'dead' ORDER BY",
        "WHERE q.seq > ? AND q.session = ? AND q.state NOT IN ('dead', 'delayed') ORDER BY",
    ),
    _edit(
        SQLITE,
        QUEUE,
        "cancel leaves what is leased",
        _SQL_FILE,
        "WHERE q.seq > ? AND q.session = ? AND q.state <> 'dead' ORDER BY",
        "WHERE q.seq > ? AND q.session = ? AND q.state NOT IN ('dead', 'leased') ORDER BY",
    ),
    *_bug(
        QUEUE,
        "cancelling a session cancels those whose names begin so",
        (MEMORY,),
        """
        def cancel(self, session_id=None, task_ids=()):
            ids = [each.task.id for each in self._tasks.values() if session_id and each.task.attributes.get('session_id', '').startswith(session_id)]
            return super().cancel(None, {*ids, *task_ids})
    """,
    ),
    *_bug(
        QUEUE,
        "a cancelled task comes again once its lease is over",
        (MEMORY,),
        """
        def cancel(self, session_id=None, task_ids=()):
            there = [each.task for each in self._tasks.values() if each.task.id in task_ids or session_id == each.task.attributes.get('session_id', '')]
            return there
    """,
    ),
    *_bug(
        QUEUE,
        "redrive drops attributes",
        (SQLITE,),
        "def redrive(self, tasks):\n    super().redrive([replace(task, attributes={'generation': task.attributes['generation']}) for task in tasks])",
    ),
    _edit(
        SQLITE, QUEUE, "redrive leaves what is there", _SQLITE_FILE, "connection.execute(sql.REMOVE, (row[0],))", "pass"
    ),
    # --- counts ---
    _edit(
        SQLITE,
        COUNTS,
        "leases are those of the host, not of the agent",
        _SQLITE_FILE,
        "(due, self.agent, json",
        "(due, self.agent.partition('-')[0], json",
    ),
    *_bug(
        COUNTS,
        "what is leased is counted as waiting too",
        (SQLITE,),
        """
        def stats(self, *, brief=False):
            found = super().stats(brief=brief)
            return replace(found, states=replace(found.states, waiting=(found.states.waiting or 0) + (found.states.leased or 0)))
    """,
    ),
    *_bug(
        COUNTS,
        "what is delayed is counted nowhere",
        (SQLITE,),
        """
        def stats(self, *, brief=False):
            found = super().stats(brief=False)
            return replace(found, states=replace(found.states, delayed=None), sessions={})
    """,
    ),
    *_bug(
        COUNTS,
        "sessions are counted wrong",
        (SQLITE,),
        """
        def stats(self, *, brief=False):
            found = super().stats(brief=brief)
            return replace(found, sessions={name: replace(each, waiting=(each.waiting or 0) + 1) for name, each in found.sessions.items()})
    """,
    ),
    *_bug(
        COUNTS,
        "sessions are in the wrong order",
        (SQLITE,),
        """
        def stats(self, *, brief=False):
            found = super().stats(brief=brief)
            return replace(found, sessions=dict(reversed(found.sessions.items())))
    """,
    ),
    *_bug(
        COUNTS,
        "the oldest task is as old as the clock",
        (SQLITE,),
        """
        def stats(self, *, brief=False):
            found = super().stats(brief=brief)
            return replace(found, oldest_seconds=time.time()) if found.oldest_seconds is not None else found
    """,
    ),
    *_bug(
        COUNTS,
        "the leases of agents are not counted",
        (SQLITE,),
        """
        def stats(self, *, brief=False):
            found = super().stats(brief=brief)
            return replace(found, agents={name: Holder(0, each.silent_seconds) for name, each in (found.agents or {}).items()} if found.agents is not None else None)
    """,
    ),
    *_bug(
        COUNTS,
        "what is cancelled is counted as dead",
        (SQLITE,),
        """
        def stats(self, *, brief=False):
            found = super().stats(brief=brief)
            return replace(found, states=replace(found.states, dead=(found.states.dead or 0) + (found.states.cancelled or 0)))
    """,
    ),
    *_bug(
        COUNTS,
        "stats leases what it counts",
        (MEMORY,),
        "def stats(self, *, brief=False):\n    found = super().stats(brief=brief)\n    self.receive(1, 0)\n    return found",
    ),
    _edit(
        SQLITE,
        COUNTS,
        "a session is not pending while a task is delayed",
        _SQL_FILE,
        "WHERE session = ? AND state IN ('ready', 'delayed', 'leased'))",
        "WHERE session = ? AND state IN ('ready', 'leased'))",
    ),
    _edit(
        SQLITE,
        COUNTS,
        "a session with a dead letter is pending for ever",
        _SQL_FILE,
        "WHERE session = ? AND state IN ('ready', 'delayed', 'leased'))",
        "WHERE session = ?)",
    ),
    *_bug(
        COUNTS,
        "the reasons of dead letters are lost",
        (SQLITE, SQS),
        "def dead_letter(self, leases, reason):\n    super().dead_letter(leases, '')",
    ),
    *_bug(
        COUNTS,
        "the reasons of dead letters are cut",
        (SQLITE, SQS),
        "def dead_letter(self, leases, reason):\n    super().dead_letter(leases, reason[:20])",
    ),
    *_bug(
        COUNTS,
        "dead letters are at attempt 1",
        (SQLITE,),
        "def dead_letters(self):\n    return (replace(each, attempt=1) for each in super().dead_letters())",
    ),
    *_bug(
        COUNTS,
        "one dead letter is listed",
        (SQLITE, SQS),
        "def dead_letters(self):\n    return list(super().dead_letters())[:1]",
    ),
    *_bug(
        COUNTS,
        "dead letters lose their events",
        (SQLITE,),
        "def dead_letters(self):\n    return (replace(each, task=replace(each.task, payload=b'')) for each in super().dead_letters())",
    ),
    # --- the end ---
    _edit(
        JSONL,
        ENDS,
        "it is exhausted while a task is delayed",
        _JSONL_FILE,
        "return self._ended and not self._delayed",
        "return self._ended",
    ),
    _edit(
        MEMORY,
        ENDS,
        "it is exhausted while a task is delayed",
        _MEMORY_FILE,
        "not self.config.endless and len(self._tasks) == len(self._until)",
        "not self.config.endless and not any(due <= time.monotonic() for due, _, _ in self._due)",
    ),
    _edit(
        JSONL,
        ENDS,
        "it ends after the first thousand lines",
        _JSONL_FILE,
        "self._ended = self._lines.ended",
        "self._ended = self._lines.ended or self._line + len(lines) >= 1000",
    ),
    *_bug(ENDS, "it never ends", (JSONL,), "exhausted = False"),
    _edit(
        JSONL,
        ENDS,
        "the last line is forgotten",
        _JSONL_FILE,
        "in enumerate(lines, before + 1):",
        "in enumerate(lines[: len(lines) - (self._ended and len(lines) > 1)], before + 1):",
    ),
    # --- resources and secrets ---
    *_bug(
        ANY,
        "close leaves a thread of receive",
        (SQLITE,),
        """
        _pool = None
        def receive(self, max_tasks, wait):
            if self._pool is None:
                from concurrent.futures import ThreadPoolExecutor
                self._pool = ThreadPoolExecutor(1)
            return self._pool.submit(super().receive, max_tasks, wait).result()
    """,
    ),
    *_bug(
        ANY,
        "close leaves a file",
        (MEMORY, JSONL),
        "def open(self):\n    super().open()\n    import os\n    os.open('/dev/null', 0)",
    ),
    *_bug(
        ANY,
        "a second close fails",
        (JSONL,),
        "_closed = False\ndef close(self):\n    assert not self._closed\n    self._closed = True\n    super().close()",
    ),
    *_bug(
        ANY,
        "errors tell the address with its password",
        (REDIS,),
        """
        def receive(self, max_tasks, wait):
            try:
                return super().receive(max_tasks, wait)
            except Unavailable as error:
                raise Unavailable(f"{self.config.url.get_secret_value()}: {error}")
    """,
    ),
)
