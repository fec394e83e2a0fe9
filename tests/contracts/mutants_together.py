"""Bugs that show where several agents and commands share a place, and in what is odd but allowed."""

from __future__ import annotations

from mutants_subjects import Mutant

PARTNERS = "source: beside other agents and commands"
ODD = "source: odd but allowed"
BESIDE = "sink: beside other agents and commands"
ODD_RESULTS = "sink: odd but allowed"
ODD_TASKS = "plane: odd but allowed"
_SQL_FILE = "htcgrid/builtin/sqlite_statements.py"
_SINK_FILE = "htcgrid/builtin/sqlite_sink.py"


def _bug(kind: str, name: str, plugins: tuple[str, ...], body: str) -> list[Mutant]:
    return [Mutant(plugin, kind, name, body) for plugin in plugins]


def _edit(plugin: str, kind: str, name: str, file: str, before: str, after: str) -> Mutant:
    return Mutant(plugin, kind, name, edits=((file, before, after),))


SOURCE, SOURCES = ("sqlite source",), ("sqlite source", "redis source")
SINK, STORES = ("sqlite sink",), ("sqlite sink", "redis sink")
PLANE = ("process",)

TOGETHER = (
    # --- sources ---
    *_bug(
        PARTNERS,
        "a cancel is known to the object that made it alone",
        SOURCE,
        """
        _by = {}
        def cancel(self, session_id=None, task_ids=()):
            found = super().cancel(session_id, task_ids)
            self._by.update({each.id: id(self) for each in found})
            return found
        def extend(self, leases, seconds):
            return [each for each in super().extend(leases, seconds) if self._by.get(each, id(self)) == id(self)]
    """,
    ),
    *_bug(
        PARTNERS,
        "stats count for whoever has put alone",
        SOURCE,
        """
        _put = False
        def put(self, tasks):
            super().put(tasks)
            self._put = True
        def stats(self, *, brief=False):
            return super().stats(brief=brief) if self._put else QueueStats(States(0, 0, 0, 0, 0))
    """,
    ),
    *_bug(
        PARTNERS,
        "a session is pending for whoever has put it alone",
        SOURCE,
        """
        _mine = frozenset()
        def put(self, tasks):
            super().put(tasks)
            self._mine |= {each.attributes.get('session_id', '') for each in tasks}
        def is_pending(self, session_id):
            return session_id in self._mine and super().is_pending(session_id)
    """,
    ),
    *_bug(
        PARTNERS,
        "dead letters are listed by whoever made them alone",
        SOURCES,
        """
        _mine = frozenset()
        def dead_letter(self, leases, reason):
            super().dead_letter(leases, reason)
            self._mine |= {each.task.id for each in leases}
        def dead_letters(self):
            return (each for each in super().dead_letters() if each.task.id in self._mine)
    """,
    ),
    *_bug(
        PARTNERS,
        "two receivers lease the same task at the same moment",
        SOURCE,
        """
        def _take(self, count):
            with self.__dict__.setdefault('_one', threading.Lock()):
                with self._file.writing(durable=False) as connection:
                    now = self._clock.now()
                    connection.execute(sql.DELAY_OVER, (now,))
                    connection.execute(sql.LEASE_OVER, (now,))
                    rows = chunk(connection.execute(sql.READY, (count,)))
                time.sleep(0.005)
                with self._file.writing(durable=False) as connection:
                    due = now + self.config.lease_seconds
                    connection.execute(sql.LEASE, (due, self.agent, json.dumps([row[0] for row in rows])))
                return [_lease(*row) for row in rows]
    """,
    ),
    *_bug(
        PARTNERS,
        "a receive that waits is woken by its own object alone",
        SOURCES,
        """
        def _bell(self):
            return self.__dict__.setdefault('_rings', threading.Event())
        def put(self, tasks):
            super().put(tasks)
            self._bell().set()
        def nack(self, leases, delay=0.0):
            super().nack(leases, delay)
            self._bell().set()
        def receive(self, max_tasks, wait):
            found = super().receive(max_tasks, 0)
            if not found and wait and not self.exhausted:
                self._bell().clear()
                self._bell().wait(wait)
                found = super().receive(max_tasks, 0)
            return found
    """,
    ),
    *_bug(
        "source: waits",
        "a delay or a lease that ends while receive waits is seen at the end of the wait",
        SOURCE,
        """
        def receive(self, max_tasks, wait):
            deadline = time.monotonic() + wait
            while not (found := super().receive(max_tasks, 0)) and (left := deadline - time.monotonic()) > 0:
                with self._file.reading() as connection:
                    later = connection.execute("SELECT 1 FROM queue WHERE state IN ('delayed', 'leased')").fetchone()
                found = super().receive(max_tasks, 0 if later else min(left, 0.1))
                if found:
                    return found
                time.sleep(min(left, 10) if later and wait > 4 else 0.01)
            return found
    """,
    ),
    *_bug(
        "source: the end",
        "once exhausted, always exhausted",
        ("jsonl source", "memory source"),
        """
        _over = False
        @property
        def exhausted(self):
            self._over = self._over or super().exhausted
            return self._over
    """,
    ),
    *_bug(
        ODD,
        "cancel of nothing cancels everything",
        SOURCE,
        """
        def cancel(self, session_id=None, task_ids=()):
            if session_id is None and not list(task_ids):
                with self._file.reading() as connection:
                    task_ids = [row[0] for row in connection.execute("SELECT id FROM tasks")]
            return super().cancel(session_id, task_ids)
    """,
    ),
    _edit(
        "sqlite source",
        ODD,
        "the name of a session to cancel is a pattern",
        _SQL_FILE,
        "q.session = ? AND q.state <> 'dead' ORDER",
        "q.session LIKE ? AND q.state <> 'dead' ORDER",
    ),
    _edit(
        "sqlite source",
        ODD,
        "the name of a pending session is a pattern",
        _SQL_FILE,
        "WHERE session = ? AND state IN",
        "WHERE session LIKE ? AND state IN",
    ),
    *_bug(
        ODD,
        "cancel names what is done",
        SOURCE,
        """
        _done = frozenset()
        def ack(self, leases):
            super().ack(leases)
            self._done |= {each.task.id for each in leases}
        def cancel(self, session_id=None, task_ids=()):
            return [*super().cancel(session_id, task_ids), *(Task(each, b'') for each in set(task_ids) & self._done)]
    """,
    ),
    *_bug(
        ODD,
        "an id that is given twice is cancelled twice",
        SOURCE,
        """
        def cancel(self, session_id=None, task_ids=()):
            found = list(super().cancel(session_id, ()))
            for each in task_ids:
                found += super().cancel(None, [each])
            return found
    """,
    ),
    *_bug(
        ODD,
        "a redriven task goes on counting its attempts",
        SOURCE,
        """
        def receive(self, max_tasks, wait):
            return [replace(each, attempt=each.attempt + int(each.task.attributes.get('generation', 0))) for each in super().receive(max_tasks, wait)]
    """,
    ),
    *_bug(
        ODD,
        "sessions whose names have a colon are cut",
        SOURCE,
        "def is_pending(self, session_id):\n    return super().is_pending(session_id.partition(':')[0])",
    ),
    # --- sinks ---
    *_bug(
        "sink: counts and failures",
        "stats count what was put, not what is there",
        SINK,
        """
        _put = 0
        def put(self, results):
            super().put(results)
            self._put += len(results)
        def stats(self):
            found = super().stats()
            return replace(found, stored=max(found.stored, self._put))
    """,
    ),
    *_bug(
        BESIDE,
        "stats count what this sink has put alone",
        SINK,
        """
        _put = 0
        def put(self, results):
            super().put(results)
            self._put += len(results)
        def stats(self):
            found = super().stats()
            return replace(found, stored=min(found.stored, self._put), failures=found.failures if self._put else {})
    """,
    ),
    *_bug(
        BESIDE,
        "put waits for whoever reads with scan",
        STORES,
        """
        _one = threading.RLock()
        def scan(self, session_id=None, after=0):
            with self._one:
                yield from super().scan(session_id, after)
        def put(self, results):
            with self._one:
                super().put(results)
    """,
    ),
    *_bug(
        BESIDE,
        "put waits for whoever reads the failures",
        STORES,
        """
        _one = threading.RLock()
        def failed(self):
            with self._one:
                yield from super().failed()
        def put(self, results):
            with self._one:
                super().put(results)
    """,
    ),
    *_bug(
        BESIDE,
        "two that put the same task at the same moment fail",
        STORES,
        """
        _now = set()
        def put(self, results):
            ids = {each.task.id for each in results}
            if ids & self._now:
                raise RuntimeError('UNIQUE constraint failed')
            self._now.update(ids)
            try:
                time.sleep(0.002)
                super().put(results)
            finally:
                self._now.difference_update(ids)
    """,
    ),
    *_bug(
        BESIDE,
        "wait_for_more does not wait",
        SINK,
        "def wait_for_more(self, seconds):\n    return super().wait_for_more(0)",
    ),
    *_bug(
        BESIDE,
        "wait_for_more looks at the end of its wait",
        SINK,
        """
        _asked = False
        def wait_for_more(self, seconds):
            found = super().wait_for_more(0)
            if found:
                return found
            time.sleep(seconds)
            return super().wait_for_more(0)
    """,
    ),
    *_bug(
        BESIDE,
        "who waits is told of what this sink has put alone",
        SINK,
        """
        _mine = True
        def put(self, results):
            super().put(results)
            self._mine = True
        def wait_for_more(self, seconds):
            mine, self._mine = self._mine, False
            return mine and super().wait_for_more(seconds)
    """,
    ),
    *_bug(
        BESIDE,
        "every_result lists what was replaced too",
        STORES,
        """
        _old = ()
        def put(self, results):
            type(self)._old = [*self._old, *(each for each in results if each.outcome.failure is not None)]
            super().put(results)
        def every_result(self):
            now = list(super().every_result())
            yield from now
            ids = {each.task.id for each in now if each.outcome.failure is None}
            yield from (each for each in self._old if each.task.id in ids)
    """,
    ),
    *_bug(
        ODD_RESULTS,
        "get knows plain ids alone",
        STORES,
        "def get(self, task_ids):\n    return super().get([each for each in task_ids if each.isascii() and '/' not in each])",
    ),
    *_bug(
        ODD_RESULTS,
        "stored knows plain ids alone",
        STORES,
        'def stored(self, tasks):\n    return super().stored([each for each in tasks if each.id.isascii() and "\'" not in each.id])',
    ),
    *_bug(
        ODD_RESULTS,
        "stored names ids without regard to case",
        SINK,
        """
        def stored(self, tasks):
            other = {each.id[:-1] + each.id[-1].swapcase(): each.id for each in tasks}
            found = super().stored([replace(each, id=key) for key, each in zip(other, tasks)])
            return list({*super().stored(tasks), *(other[key] for key in found)})
    """,
    ),
    _edit(
        "sqlite sink",
        ODD_RESULTS,
        "the name of a session in scan is a pattern",
        _SINK_FILE,
        " INDEXED BY results_session WHERE number > ? AND session = ?",
        " WHERE number > ? AND session LIKE ?",
    ),
    *_bug(
        "sink: counts and failures",
        "has_failed overlooks cancelled tasks and timeouts",
        STORES,
        "def has_failed(self):\n    return any(each.outcome.failure not in (FailureKind.CANCELLED, FailureKind.TIMEOUT) for each in self.failed())",
    ),
    # --- planes ---
    *_bug(
        "plane: batches and slots",
        "the outcomes of a batch come together at its end",
        PLANE,
        "def invoke(self, batch, timeout):\n    reports = list(super().invoke(batch, timeout))\n    yield from reports",
    ),
    *_bug(
        "plane: cancel",
        "cancelling a task of a batch stops the one that runs",
        PLANE,
        """
        _batches = {}
        def invoke(self, batch, timeout):
            self._batches.update({each.task.id: [other.task.id for other in batch] for each in batch})
            yield from super().invoke(batch, timeout)
        def cancel(self, task_ids):
            super().cancel([other for each in task_ids for other in self._batches.get(each, [each])])
    """,
    ),
    *_bug(
        ODD_TASKS,
        "ids become file names",
        PLANE,
        """
        def invoke(self, batch, timeout):
            for each in batch:
                if '/' in each.task.id or len(each.task.id.encode()) > 100:
                    raise OSError(f'no such file: {each.task.id}')
            yield from super().invoke(batch, timeout)
    """,
    ),
    *_bug(
        ODD_TASKS,
        "attributes go through a header",
        PLANE,
        """
        def invoke(self, batch, timeout):
            sent = [replace(each, task=replace(each.task, attributes={k: v.encode('latin-1', 'replace').decode('latin-1').replace('\\n', ' ').strip() for k, v in each.task.attributes.items()})) for each in batch]
            yield from super().invoke(sent, timeout)
    """,
    ),
    *_bug(
        ODD_TASKS,
        "empty attributes are dropped",
        PLANE,
        """
        def invoke(self, batch, timeout):
            sent = [replace(each, task=replace(each.task, attributes={k: v for k, v in each.task.attributes.items() if v})) for each in batch]
            yield from super().invoke(sent, timeout)
    """,
    ),
    *_bug(
        "plane: timeouts and ends",
        "timeouts are whole seconds",
        PLANE,
        "def invoke(self, batch, timeout):\n    yield from super().invoke(batch, max(1, int(timeout)))",
    ),
    *_bug(
        "plane: kinds of failure",
        "long messages of errors are cut",
        PLANE,
        """
        def invoke(self, batch, timeout):
            for report in super().invoke(batch, timeout):
                if isinstance(report, Outcome) and report.failure is FailureKind.HANDLER_ERROR:
                    document = json.loads(report.payload)
                    report = replace(report, payload=json.dumps({**document, 'errorMessage': document['errorMessage'][:1000]}).encode())
                yield report
    """,
    ),
    *_bug(
        "plane: logs",
        "the log of a failure is the next task's too",
        PLANE,
        """
        _kept = b''
        def invoke(self, batch, timeout):
            for report in super().invoke(batch, timeout):
                if isinstance(report, Outcome):
                    kept, self._kept = self._kept, report.log_tail if report.failure else b''
                    report = replace(report, log_tail=(kept + report.log_tail)[-4096:])
                yield report
    """,
    ),
    _edit(
        "process",
        "plane: logs",
        "what was not flushed is lost with a handler that is stopped",
        "htcgrid/runtime/fork_server_main.py",
        "        bootstrap.run(request",
        "        bootstrap.Unbuffered = lambda stream: stream\n        bootstrap.run(request",
    ),
)
