"""Bugs at the edges of calls: the last argument of a lease, an empty place, two calls at once, what an error leaves behind."""

from __future__ import annotations

from mutants_subjects import Mutant, bug, plane_bug, report_bug, sink_bug

BATCHES = "source: only a part of a batch"
WAITS = "source: waits"
ERRORS = "source: errors"
LEASES = "source: leases"
ARRIVES = "source: what arrives"
PUTS = "source: put, cancel, redrive"
COUNTS = "source: counts and dead letters"
PARTNERS = "source: beside other agents and commands"
ODD = "source: odd but allowed"
STORED = "sink: what is stored"
READ = "sink: what is read"
BESIDE = "sink: beside other agents and commands"
FAILURES = "sink: counts and failures"
SINK_ERRORS = "sink: errors"
ODD_RESULTS = "sink: odd but allowed"
CONTEXT = "plane: context"
CANCELS = "plane: cancel"
METERS = "plane: metering"
KINDS = "plane: kinds of failure"
ENDS = "plane: timeouts and ends"
LOGS = "plane: logs"
SLOTS = "plane: batches and slots"
NEIGHBOURS = "plane: open, close, neighbours"
LIMITS = "plane: answers and events"
_SQL = "htcgrid/builtin/sqlite_statements.py"
_SOURCE = "htcgrid/builtin/sqlite_source.py"
_AGAIN = "json.dumps(json.loads(each.task.payload)).encode()"


_BY_ID = """
    def _by_id(self, leases):
        found = []
        for each in leases:
            with self._file.reading() as connection:
                row = connection.execute('SELECT seq FROM tasks WHERE id = ?', (each.task.id,)).fetchone()
            found.append(replace(each, receipt=(row[0], each.attempt)) if row else each)
        return found
"""
"""A lease is known by its task's id and its attempt, which begins at 1 again with each generation."""

FRESH_SOURCES = (
    # --- leases ---
    Mutant(
        "sqlite source",
        LEASES,
        "a late nack with a delay returns the lease of another",
        edits=(
            (
                _SQL,
                'WHERE seq = ? AND attempt = ? AND state = \'leased\'\n"""',
                'WHERE seq = ? AND attempt >= ? AND state = \'leased\'\n"""',
            ),
        ),
    ),
    bug(
        LEASES,
        "an earlier generation's extend is that of the later one",
        _BY_ID
        + "\n    def extend(self, leases, seconds):\n        return super().extend(self._by_id(leases), seconds)\n",
    ),
    bug(
        LEASES,
        "an earlier generation's ack is that of the later one",
        _BY_ID
        + """
    def ack(self, leases):
        for each in self._by_id(leases):
            with self._file.reading() as connection:
                row = connection.execute('SELECT attempt FROM queue WHERE seq = ?', (each.receipt[0],)).fetchone()
            if row and row[0] == each.attempt:
                super().ack([each])
""",
    ),
    bug(
        LEASES,
        "an earlier generation's dead_letter is that of the later one",
        _BY_ID
        + "\n    def dead_letter(self, leases, reason):\n        super().dead_letter(self._by_id(leases), reason)\n",
    ),
    # --- receive ---
    bug(
        BATCHES,
        "receive leases one more than it returns",
        "def receive(self, max_tasks, wait):\n    return super().receive(max_tasks + 1, wait)[:max_tasks]",
    ),
    bug(
        BATCHES,
        "receive leases one more than it returns",
        "def receive(self, max_tasks, wait):\n    return super().receive(max_tasks + 1, wait)[:max_tasks]",
        "redis source",
    ),
    bug(
        BATCHES,
        "what does not fit into an answer comes when its lease is over",
        """
        def receive(self, max_tasks, wait):
            kept, size = [], 0
            for each in super().receive(max_tasks, wait):
                size += len(each.task.payload)
                if not kept or size < 3_000_000:
                    kept.append(each)
            return kept
    """,
    ),
    *(
        bug(
            WAITS,
            "a receive without wait hands out nothing",
            "def receive(self, max_tasks, wait):\n    return super().receive(max_tasks, wait) if wait > 0 else ()",
            plugin,
        )
        for plugin in ("sqlite source", "redis source", "jsonl source")
    ),
    bug(
        ERRORS,
        "a receive that waits overlooks that its place went away",
        """
        def receive(self, max_tasks, wait):
            end = time.monotonic() + wait
            leases = super().receive(max_tasks, 0)
            while not leases and time.monotonic() < end:
                try:
                    leases = super().receive(max_tasks, min(0.5, end - time.monotonic()))
                except Unavailable:
                    time.sleep(0.2)
            return leases
    """,
        "redis source",
    ),
    bug(
        ERRORS,
        "each call that fails takes a connection of ten",
        """
        _left = 10
        def receive(self, max_tasks, wait):
            if not self._left:
                raise Unavailable('no connection is free')
            try:
                return super().receive(max_tasks, wait)
            except Unavailable:
                self._left -= 1
                raise
    """,
        "redis source",
    ),
    bug(
        ERRORS,
        "retry_after is in milliseconds",
        """
        def receive(self, max_tasks, wait):
            try:
                return super().receive(max_tasks, wait)
            except Unavailable as error:
                raise Unavailable(str(error), retry_after=5000) from None
    """,
        "redis source",
    ),
    bug(
        ERRORS,
        "an open while the place is away is Rejected",
        """
        def open(self):
            try:
                super().open()
            except Unavailable as error:
                raise Rejected(str(error)) from None
    """,
        "redis source",
    ),
    # --- what arrives ---
    bug(
        ARRIVES,
        "dead letters' events are parsed and written again",
        f"def dead_letters(self):\n    return (replace(each, task=replace(each.task, payload={_AGAIN})) for each in super().dead_letters())",
    ),
    bug(
        ARRIVES,
        "redrive parses events and writes them again",
        f"def redrive(self, tasks):\n    super().redrive([replace(each.task, payload={_AGAIN}) for each in map(Lease, tasks)])",
    ),
    *(
        bug(
            ARRIVES,
            "what comes again was parsed and written again",
            f"def receive(self, max_tasks, wait):\n    return [replace(each, task=replace(each.task, payload={_AGAIN})) if each.attempt > 1 else each for each in super().receive(max_tasks, wait)]",
            plugin,
        )
        for plugin in ("sqlite source", "redis source", "jsonl source")
    ),
    bug(
        ARRIVES,
        "attributes are normalised",
        "def put(self, tasks):\n    super().put([replace(each, attributes={k: unicodedata.normalize('NFC', v) for k, v in each.attributes.items()}) for each in tasks])",
    ),
    bug(
        ARRIVES,
        "line breaks of attributes become line feeds",
        "def put(self, tasks):\n    super().put([replace(each, attributes={k: v.replace('\\r\\n', '\\n') for k, v in each.attributes.items()}) for each in tasks])",
    ),
    bug(
        ARRIVES,
        "a generation that is no number fails",
        "def put(self, tasks):\n    [int(each.attributes.get('generation', 0)) for each in tasks]\n    super().put(tasks)",
    ),
    bug(
        ARRIVES,
        "a NUL in an attribute fails",
        "def put(self, tasks):\n    if any('\\0' in text for each in tasks for text in each.attributes.values()):\n        raise ValueError('A string literal cannot contain NUL (0x00) characters.')\n    super().put(tasks)",
    ),
    bug(
        ARRIVES,
        "half of a surrogate pair in an attribute fails",
        "def put(self, tasks):\n    [text.encode() for each in tasks for text in each.attributes.values()]\n    super().put(tasks)",
    ),
    bug(
        ARRIVES,
        "an ack of what is no task does nothing",
        "def ack(self, leases):\n    super().ack([each for each in leases if not each.invalid])",
        "redis source",
    ),
    bug(
        ARRIVES,
        "what is no task hides the others of its batch",
        "def receive(self, max_tasks, wait):\n    leases = super().receive(max_tasks, wait)\n    return [each for each in leases if each.invalid] or leases",
        "redis source",
    ),
    # --- put, cancel, redrive ---
    bug(
        PUTS,
        "cancel takes a list of ids alone",
        "def cancel(self, session_id=None, task_ids=()):\n    return super().cancel(session_id, task_ids[:])",
    ),
    bug(
        ODD,
        "extend takes a list of leases alone",
        "def extend(self, leases, seconds):\n    return super().extend(leases + [], seconds)",
    ),
    bug(
        PUTS,
        "cancel leaves what has a lease that is over",
        """
        def cancel(self, session_id=None, task_ids=()):
            with self._file.reading() as connection:
                over = {each for (each,) in connection.execute("SELECT t.id FROM queue q JOIN tasks t ON t.seq = q.seq WHERE q.state = 'leased' AND q.due <= ?", (self._clock.now(),))}
            return super().cancel(session_id, [each for each in task_ids if each not in over])
    """,
    ),
    Mutant(
        "sqlite source",
        PUTS,
        "a redrive of an earlier generation replaces the task",
        edits=(
            (
                _SOURCE,
                "attributes_of(row[1]))) < generation_of(task):",
                "attributes_of(row[1]))) != generation_of(task):",
            ),
        ),
    ),
    bug(
        ODD,
        "sessions are cut at 64 characters",
        "def cancel(self, session_id=None, task_ids=()):\n    return super().cancel(session_id and session_id[:64], task_ids)",
    ),
    bug(
        ODD,
        "sessions are stripped",
        "def cancel(self, session_id=None, task_ids=()):\n    return super().cancel(session_id and session_id.strip(), task_ids)",
    ),
    bug(
        ODD,
        "cancelling the session without a name cancels all",
        """
        def cancel(self, session_id=None, task_ids=()):
            found = list(super().cancel(session_id, task_ids))
            for name in self.stats().sessions if session_id == '' else ():
                found += super().cancel(name)
            return found
    """,
    ),
    bug(
        ERRORS,
        "each put that is Rejected takes a connection of ten",
        """
        _left = 10
        def put(self, tasks):
            if not self._left:
                raise Unavailable('no connection is free')
            try:
                super().put(tasks)
            except Rejected:
                self._left -= 1
                raise
    """,
    ),
    # --- counts ---
    bug(
        COUNTS,
        "the counts of an empty queue are none",
        """
        def stats(self, *, brief=False):
            found = super().stats(brief=brief)
            return found if found.states.waiting or found.states.leased else replace(found, states=States())
    """,
    ),
    bug(
        COUNTS,
        "stats of an empty queue fail",
        """
        def stats(self, *, brief=False):
            found = super().stats(brief=brief)
            with self._file.reading() as connection:
                seen = connection.execute('SELECT max(seq) FROM tasks').fetchone()[0]
            assert seen > 0
            return found
    """,
    ),
    bug(
        PARTNERS,
        "stats go through what others change",
        """
        def stats(self, *, brief=False):
            for _ in self._tasks:
                time.sleep(0.0005)
            return super().stats(brief=brief)
    """,
        "memory source",
    ),
    bug(
        PARTNERS,
        "threads that cancel share a list",
        """
        _found = ()
        def cancel(self, session_id=None, task_ids=()):
            self._found = super().cancel(session_id, task_ids)
            time.sleep(0.002)
            return self._found
    """,
    ),
)

FRESH_SINKS = (
    sink_bug(
        FAILURES,
        "stats of an empty store fail",
        """
        def stats(self):
            found = super().stats()
            return replace(found, per_second=found.stored * 1.0 / found.stored * found.per_second)
    """,
    ),
    sink_bug(
        FAILURES,
        "the counts of an empty store are none",
        "def stats(self):\n    found = super().stats()\n    return found if found.stored else StoreStats()",
    ),
    sink_bug(
        READ,
        "every_result of an empty store fails",
        "def every_result(self):\n    found = [each for _, each in self.scan()]\n    last = found[-1]\n    return iter(found)",
    ),
    sink_bug(
        READ,
        "threads that get share a result",
        """
        _found = {}
        def get(self, task_ids):
            self._found = super().get(task_ids)
            time.sleep(0.002)
            return self._found
    """,
    ),
    sink_bug(
        READ,
        "threads that ask what is stored share a result",
        """
        _found = ()
        def stored(self, tasks):
            self._found = super().stored(tasks)
            time.sleep(0.002)
            return self._found
    """,
    ),
    sink_bug(
        ODD_RESULTS, "get takes a list of ids alone", "def get(self, task_ids):\n    return super().get(task_ids + [])"
    ),
    sink_bug(
        ODD_RESULTS, "put takes a list of results alone", "def put(self, results):\n    super().put(results + [])"
    ),
    sink_bug(
        ODD_RESULTS,
        "a scan of the session without a name is of all",
        "def scan(self, session_id=None, after=0):\n    return super().scan(session_id or None, after)",
    ),
    sink_bug(
        ODD_RESULTS,
        "sessions are cut at 64 characters",
        "def scan(self, session_id=None, after=0):\n    return super().scan(session_id and session_id[:64], after)",
    ),
    sink_bug(
        ODD_RESULTS,
        "sessions are stripped",
        "def scan(self, session_id=None, after=0):\n    return super().scan(session_id and session_id.strip(), after)",
    ),
    sink_bug(
        STORED,
        "attributes are normalised",
        "def put(self, results):\n    super().put([replace(each, task=replace(each.task, attributes={k: unicodedata.normalize('NFC', v) for k, v in each.task.attributes.items()})) for each in results])",
    ),
    *(
        sink_bug(
            STORED,
            "a generation that is no number fails",
            "def put(self, results):\n    [int(each.task.attributes.get('generation', 0)) for each in results]\n    super().put(results)",
            plugin,
        )
        for plugin in ("sqlite sink", "redis sink")
    ),
    *(
        sink_bug(
            SINK_ERRORS,
            "a NUL in an attribute fails",
            "def put(self, results):\n    if any('\\0' in text for each in results for text in each.task.attributes.values()):\n        raise ValueError('A string literal cannot contain NUL (0x00) characters.')\n    super().put(results)",
            plugin,
        )
        for plugin in ("sqlite sink", "redis sink")
    ),
    sink_bug(
        SINK_ERRORS,
        "half of a surrogate pair in an attribute fails",
        "def put(self, results):\n    [text.encode() for each in results for text in each.task.attributes.values()]\n    super().put(results)",
    ),
    sink_bug(
        SINK_ERRORS,
        "of several that are too large one is named",
        "def put(self, results):\n    try:\n        super().put(results)\n    except Rejected as error:\n        raise Rejected(str(error), sorted(error.task_ids)[:1]) from None",
        "redis sink",
    ),
    sink_bug(
        SINK_ERRORS,
        "each put that is Rejected takes a connection of ten",
        """
        _left = 10
        def put(self, results):
            if not self._left:
                raise Unavailable('no connection is free')
            try:
                super().put(results)
            except Rejected:
                self._left -= 1
                raise
    """,
        "redis sink",
    ),
    sink_bug(
        SINK_ERRORS,
        "each call that fails takes a connection of ten",
        """
        _left = 10
        def put(self, results):
            if not self._left:
                raise Unavailable('no connection is free')
            try:
                super().put(results)
            except Unavailable:
                self._left -= 1
                raise
    """,
        "redis sink",
    ),
    sink_bug(
        SINK_ERRORS,
        "a reader's open raises the client's own error",
        "def open_to_read(self):\n    try:\n        self.open()\n    except Unavailable as error:\n        raise ConnectionError(str(error)) from None",
        "redis sink",
    ),
    sink_bug(
        SINK_ERRORS,
        "an open while the place is away is Rejected",
        "def open(self):\n    try:\n        super().open()\n    except Unavailable as error:\n        raise Rejected(str(error)) from None",
        "redis sink",
    ),
)

_COUNTED = """
    def __init__(self, config, function):
        super().__init__(config, function)
        self._now = {}
    def _run(self, batch, timeout):
        key = object()
        self._now[key] = {each.task.id for each in batch}
        try:
            yield from super().invoke(batch, timeout)
        finally:
            del self._now[key]
"""
_LOSES = """
    def __init__(self, config, function):
        super().__init__(config, function)
        self._slots = threading.Semaphore(2)
    def invoke(self, batch, timeout):
        self._slots.acquire()
        is_lost = False
        try:
            for report in super().invoke(batch, timeout):
                is_lost |= isinstance(report, Outcome) and report.failure is FailureKind.{}
                yield report
        finally:
            if not is_lost:
                self._slots.release()
"""

FRESH_PLANES = (
    plane_bug(
        CANCELS,
        "a cancel of what has ended stops what runs in its place",
        _COUNTED
        + """
    _ever = frozenset()
    def invoke(self, batch, timeout):
        self._ever = self._ever | {each.task.id for each in batch}
        return self._run(batch, timeout)
    def cancel(self, task_ids):
        now = set().union(*list(self._now.values()))
        super().cancel([*task_ids, *(now if (set(task_ids) & self._ever) - now else ())])
""",
    ),
    plane_bug(
        CANCELS, "cancel takes a list of ids alone", "def cancel(self, task_ids):\n    super().cancel(task_ids[:])"
    ),
    report_bug(
        LOGS,
        "the end of a log is so many characters",
        "replace(report, log_tail=report.log_tail + b'x' * 2000) if len(report.log_tail) > 4000 and max(report.log_tail) > 127 else report",
    ),
    report_bug(
        LOGS,
        "the logs of cancelled tasks are lost",
        "replace(report, log_tail=b'') if report.failure is FailureKind.CANCELLED else report",
    ),
    report_bug(
        LOGS,
        "the logs of answers that are too large are lost",
        "replace(report, log_tail=b'') if report.failure is FailureKind.PAYLOAD_TOO_LARGE else report",
    ),
    report_bug(
        METERS,
        "answers that are too large are not billed",
        "replace(report, started=0.0, duration_ms=0.0, billed_ms=0) if report.failure is FailureKind.PAYLOAD_TOO_LARGE else report",
    ),
    report_bug(
        METERS,
        "what is past its memory is not billed",
        "replace(report, started=0.0, duration_ms=0.0, billed_ms=0) if report.failure is FailureKind.OUT_OF_MEMORY else report",
    ),
    plane_bug(
        METERS,
        "durations of a batch add up",
        """
        def invoke(self, batch, timeout):
            sum_ms = 0.0
            for report in super().invoke(batch, timeout):
                if isinstance(report, Outcome):
                    sum_ms += report.duration_ms
                    report = replace(report, duration_ms=sum_ms, billed_ms=int(sum_ms) + 1)
                yield report
    """,
    ),
    plane_bug(
        METERS,
        "environments of two planes have the same names",
        """
        def invoke(self, batch, timeout):
            names = vars(self).setdefault('_names', {})
            for report in super().invoke(batch, timeout):
                if isinstance(report, Outcome) and report.environment:
                    report = replace(report, environment=names.setdefault(report.environment, f'worker-{len(names)}'))
                yield report
    """,
    ),
    plane_bug(
        CONTEXT,
        "the context has the attributes of earlier tasks",
        """
        _seen = {}
        def invoke(self, batch, timeout):
            mine = []
            for each in batch:
                mine.append(replace(each, task=replace(each.task, attributes={**self._seen, **each.task.attributes})))
                self._seen.update({k: v for k, v in each.task.attributes.items() if k not in ('session_id', 'traceparent', 'client_context', 'AWSTraceHeader')})
            return super().invoke(mine, timeout)
    """,
    ),
    plane_bug(
        CONTEXT,
        "the trace is that of an earlier task",
        """
        _trace = {}
        def invoke(self, batch, timeout):
            for each in batch:
                if 'traceparent' in each.task.attributes:
                    self._trace = {'traceparent': each.task.attributes['traceparent']}
            return super().invoke([replace(each, task=replace(each.task, attributes={**self._trace, **each.task.attributes})) for each in batch], timeout)
    """,
    ),
    plane_bug(
        LIMITS,
        "the limit of events is in characters",
        """
        def invoke(self, batch, timeout):
            long = [each for each in batch if len(each.task.payload) > limits.REQUEST_BYTES and len(each.task.payload.decode()) <= limits.REQUEST_BYTES]
            yield from (Outcome(each.task.id, b'1') for each in long)
            left = [each for each in batch if each not in long]
            yield from super().invoke(left, timeout) if left else ()
    """,
    ),
    plane_bug(
        LIMITS,
        "a few bytes more than the limit of events pass",
        """
        def invoke(self, batch, timeout):
            long = [each for each in batch if limits.REQUEST_BYTES < len(each.task.payload) <= limits.REQUEST_BYTES + 20]
            yield from (Outcome(each.task.id, b'1') for each in long)
            left = [each for each in batch if each not in long]
            yield from super().invoke(left, timeout) if left else ()
    """,
    ),
    *(
        plane_bug(SLOTS, f"{what} loses its slot", _LOSES.format(kind))
        for what, kind in (
            ("an answer that is too large", "PAYLOAD_TOO_LARGE"),
            ("a cancel", "CANCELLED"),
            ("a timeout", "TIMEOUT"),
            ("what is past its memory", "OUT_OF_MEMORY"),
        )
    ),
    plane_bug(
        SLOTS,
        "a handler that cannot be loaded loses its slot",
        _LOSES.format("INIT_ERROR"),
    ),
    plane_bug(
        ENDS,
        "an end is seen once its children have ended",
        """
        def invoke(self, batch, timeout):
            for report in super().invoke(batch, timeout):
                if isinstance(report, Outcome) and report.failure is FailureKind.EXIT and b'"child"' in batch[0].task.payload:
                    time.sleep(json.loads(batch[0].task.payload)['child'])
                yield report
    """,
    ),
    plane_bug(
        ENDS,
        "a handler that is stopped runs on",
        """
        def invoke(self, batch, timeout):
            for report in super().invoke(batch, timeout):
                if isinstance(report, Outcome) and report.failure in (FailureKind.TIMEOUT, FailureKind.CANCELLED):
                    for each in batch:
                        event = json.loads(each.task.payload)
                        if each.task.id == report.task_id and 'after' in event:
                            threading.Timer(0.5, open, [event['after'], 'a']).start()
                yield report
    """,
    ),
    plane_bug(
        NEIGHBOURS,
        "close waits for what runs",
        _COUNTED
        + """
    def invoke(self, batch, timeout):
        return self._run(batch, timeout)
    def close(self):
        while self._now:
            time.sleep(0.05)
        super().close()
""",
    ),
)

FRESH = (*FRESH_SOURCES, *FRESH_SINKS, *FRESH_PLANES)
