"""Bugs that show in large or unlike batches, in what lies between two calls, and beside a call that waits."""

from __future__ import annotations

from mutants_clocks import SAME
from mutants_fresh import (
    BATCHES,
    BESIDE,
    CANCELS,
    COUNTS,
    ENDS,
    ERRORS,
    FAILURES,
    LEASES,
    LIMITS,
    METERS,
    NEIGHBOURS,
    PARTNERS,
    PUTS,
    READ,
    SINK_ERRORS,
    SLOTS,
    STORED,
    WAITS,
)
from mutants_fresh import KINDS as KINDS_OF_FAILURE
from mutants_sources import ENDS as END_OF_SOURCE
from mutants_subjects import Mutant, bug, plane_bug, report_bug, sink_bug

_SOURCE = "htcgrid/builtin/sqlite_source.py"
_STATS = "htcgrid/builtin/sqlite_stats.py"
_OURS = "SELECT 1 FROM queue WHERE seq = ? AND attempt = ? AND state = 'leased'"


def _behind_receive(call: str, parameters: str, arguments: str) -> Mutant:
    """A call that waits for a `receive` that waits."""
    return bug(
        WAITS,
        f"a receive that waits holds the lock that {call} needs",
        f"""
        def _alone(self):
            return self.__dict__.setdefault("_one", threading.RLock())
        def receive(self, max_tasks, wait):
            with self._alone():
                return super().receive(max_tasks, wait)
        def {call}(self{parameters}):
            with self._alone():
                return super().{call}({arguments})
    """,
    )


LATER_SOURCES = (
    # --- a part of a batch ---
    *(
        bug(BATCHES, name, body, plugin)
        for plugin in ("sqlite source", "redis source")
        for name, body in (
            (
                "extend keeps the first hundred",
                "def extend(self, leases, seconds):\n    return super().extend(leases[:100], seconds)",
            ),
            ("ack ends the first hundred", "def ack(self, leases):\n    super().ack(leases[:100])"),
            (
                "nack delays the first ten",
                "def nack(self, leases, delay=0.0):\n    super().nack(leases[:10], delay)\n    super().nack(leases[10:])",
            ),
            (
                "extend keeps those of the first's attempt",
                "def extend(self, leases, seconds):\n    return super().extend([each for each in leases if each.attempt == leases[0].attempt], seconds)",
            ),
            (
                "nack returns those of the first's attempt",
                "def nack(self, leases, delay=0.0):\n    super().nack([each for each in leases if each.attempt == leases[0].attempt], delay)",
            ),
            (
                "ack ends those of the first's attempt",
                "def ack(self, leases):\n    super().ack([each for each in leases if each.attempt == leases[0].attempt])",
            ),
            (
                "extend keeps those of the first's session",
                "def extend(self, leases, seconds):\n    return super().extend([each for each in leases if each.task.attributes.get('session_id') == leases[0].task.attributes.get('session_id')], seconds)",
            ),
            (
                "nack delays those of the first's session",
                "def nack(self, leases, delay=0.0):\n    first = [each for each in leases if each.task.attributes.get('session_id') == leases[0].task.attributes.get('session_id')]\n    super().nack(first, delay)\n    super().nack([each for each in leases if each not in first])",
            ),
        )
    ),
    bug(
        BATCHES,
        "extend keeps none of a batch where one is lost",
        f"""
        def extend(self, leases, seconds):
            with self._file.reading() as connection:
                gone = [each.task.id for each in leases if not connection.execute({_OURS!r}, each.receipt).fetchone()]
            return gone or super().extend(leases, seconds)
    """,
    ),
    bug(
        BATCHES,
        "extend keeps those before the first that is lost",
        f"""
        def extend(self, leases, seconds):
            gone = []
            for number, each in enumerate(leases):
                with self._file.reading() as connection:
                    if not connection.execute({_OURS!r}, each.receipt).fetchone():
                        gone.append(each.task.id)
                if not gone:
                    super().extend([each], seconds)
            return gone
    """,
    ),
    bug(
        BATCHES,
        "dead_letter gives up at the first lease that is lost",
        f"""
        def dead_letter(self, leases, reason):
            for each in leases:
                with self._file.reading() as connection:
                    if not connection.execute({_OURS!r}, each.receipt).fetchone():
                        return
                super().dead_letter([each], reason)
    """,
    ),
    bug(
        BATCHES,
        "ack gives up at the first lease that is lost",
        f"""
        def ack(self, leases):
            for each in leases:
                with self._file.reading() as connection:
                    if not connection.execute({_OURS!r}, each.receipt).fetchone():
                        return
                super().ack([each])
    """,
    ),
    # --- leases ---
    bug(
        LEASES,
        "what is leased again keeps the end that it was extended to",
        """
        _ends = None
        def extend(self, leases, seconds):
            self._ends = {**(self._ends or {}), **{each.task.id: time.monotonic() + seconds for each in leases}}
            return super().extend(leases, seconds)
        def receive(self, max_tasks, wait):
            leases = super().receive(max_tasks, wait)
            for each in leases:
                left = (self._ends or {}).get(each.task.id, 0) - time.monotonic()
                if left > 0:
                    super().extend([each], left)
            return leases
    """,
    ),
    *(
        bug(
            LEASES,
            f"a lease is known by its task and its agent: {call}",
            f"""
            def _mine(self, leases):
                found = []
                for each in leases:
                    with self._file.reading() as connection:
                        row = connection.execute("SELECT attempt FROM queue WHERE seq = ? AND agent = ? AND state = 'leased'", (each.receipt[0], self.agent)).fetchone()
                    found.append(replace(each, receipt=(each.receipt[0], row[0])) if row else each)
                return found
            def {call}(self, leases, {parameter}):
                return super().{call}(self._mine(leases), {argument})
        """,
        )
        for call, parameter, argument in (("nack", "delay=0.0", "delay"), ("extend", "seconds", "seconds"))
    ),
    # --- beside a receive that waits ---
    _behind_receive("stats", ", *, brief=False", "brief=brief"),
    _behind_receive("dead_letter", ", leases, reason", "leases, reason"),
    _behind_receive("cancel", ", session_id=None, task_ids=()", "session_id, task_ids"),
    _behind_receive("is_pending", ", session_id", "session_id"),
    _behind_receive("dead_letters", "", ""),
    _behind_receive("redrive", ", tasks", "tasks"),
    bug(
        WAITS,
        "of two that wait one is woken",
        """
        _told = threading.Condition()
        def _tell(self):
            with self._told:
                self._told.notify()
        def put(self, tasks):
            super().put(tasks)
            self._tell()
        def nack(self, leases, delay=0.0):
            super().nack(leases, delay)
            self._tell()
        def receive(self, max_tasks, wait):
            end = time.monotonic() + wait
            while True:
                leases = super().receive(max_tasks, 0)
                left = end - time.monotonic()
                if leases or left <= 0:
                    return leases
                due = self._next_due()
                with self._told:
                    self._told.wait(left if due is None else min(left, max(0.005, due - self._clock.now())))
    """,
    ),
    Mutant(
        "sqlite source",
        WAITS,
        "a return with a delay is not seen by who waits already",
        edits=(
            (
                _SOURCE,
                "with self._file.writing(durable=False, is_awaited=True) as connection:\n            if delay",
                "with self._file.writing(durable=False, is_awaited=delay <= 0) as connection:\n            if delay",
            ),
        ),
    ),
    # --- errors ---
    *(
        bug(
            ERRORS,
            f"{call} tries three times within half a second",
            f"""
            def {call}(self, {parameters}):
                for _ in range(3):
                    try:
                        return super().{call}({arguments})
                    except Unavailable as error:
                        last = error
                        time.sleep(0.15)
                raise last
        """,
            "redis source",
        )
        for call, parameters, arguments in (
            ("ack", "leases", "leases"),
            ("extend", "leases, seconds", "leases, seconds"),
        )
    ),
    bug(
        ERRORS,
        "a nack with a delay swallows Unavailable",
        """
        def nack(self, leases, delay=0.0):
            try:
                super().nack(leases, delay)
            except Unavailable:
                if not delay:
                    raise
    """,
        "redis source",
    ),
    # --- put, cancel, redrive ---
    bug(
        PUTS,
        "put makes a delayed task ready",
        """
        def put(self, tasks):
            super().put(tasks)
            with self._file.writing(durable=True, is_awaited=True) as connection:
                for each in tasks:
                    connection.execute("UPDATE queue SET state = 'ready', due = NULL WHERE state = 'delayed' AND seq = (SELECT seq FROM tasks WHERE id = ?)", (each.id,))
    """,
    ),
    bug(
        PUTS,
        "put revives a dead letter",
        """
        def put(self, tasks):
            super().put(tasks)
            with self._file.writing(durable=True, is_awaited=True) as connection:
                for each in tasks:
                    connection.execute("UPDATE queue SET state = 'ready', due = NULL WHERE state = 'dead' AND seq = (SELECT seq FROM tasks WHERE id = ?)", (each.id,))
    """,
    ),
    bug(
        PUTS,
        "what is redriven keeps its delay",
        """
        def redrive(self, tasks):
            with self._file.reading() as connection:
                due = {each.id: connection.execute("SELECT q.due FROM queue q JOIN tasks t ON t.seq = q.seq WHERE t.id = ? AND q.state = 'delayed'", (each.id,)).fetchone() for each in tasks}
            super().redrive(tasks)
            with self._file.writing(durable=True) as connection:
                for task_id, row in due.items():
                    if row:
                        connection.execute("UPDATE queue SET state = 'delayed', due = ? WHERE seq = (SELECT seq FROM tasks WHERE id = ?)", (row[0], task_id))
    """,
    ),
    bug(
        PUTS,
        "cancel leaves what was returned with a delay by another",
        """
        def cancel(self, session_id=None, task_ids=()):
            if session_id is not None:
                with self._file.reading() as connection:
                    task_ids = [*task_ids, *(each for (each,) in connection.execute("SELECT t.id FROM queue q JOIN tasks t ON t.seq = q.seq WHERE q.session = ? AND q.state IN ('ready', 'leased', 'cancelled')", (session_id,)))]
            return super().cancel(None, task_ids)
    """,
    ),
    # --- counts and dead letters ---
    bug(
        COUNTS,
        "stats count a thousand at most",
        """
        def stats(self, *, brief=False):
            found = super().stats(brief=brief)
            return replace(found, states=replace(found.states, waiting=min(1000, found.states.waiting)))
    """,
    ),
    bug(
        COUNTS,
        "sessions are a page",
        "def stats(self, *, brief=False):\n    found = super().stats(brief=brief)\n    return replace(found, sessions=dict(list(found.sessions.items())[:100]))",
    ),
    bug(
        COUNTS,
        "the oldest task is told in milliseconds",
        "def stats(self, *, brief=False):\n    found = super().stats(brief=brief)\n    return replace(found, oldest_seconds=found.oldest_seconds and found.oldest_seconds * 1000)",
    ),
    bug(
        COUNTS,
        "a returned task begins its age again",
        """
        def nack(self, leases, delay=0.0):
            super().nack(leases, delay)
            with self._file.writing(durable=False) as connection:
                for each in leases:
                    connection.execute("UPDATE tasks SET submitted = ? WHERE seq = ?", (self._clock.now(), each.receipt[0]))
    """,
    ),
    Mutant(
        "sqlite source",
        COUNTS,
        "what an agent has lost is counted as leased by it",
        edits=((_STATS, "AND q.due > ?\n    GROUP", "AND q.due > ? - 1000000\n    GROUP"),),
    ),
    bug(
        COUNTS,
        "all dead letters have the last reason",
        """
        def dead_letters(self):
            found = list(super().dead_letters())
            return [replace(each, reason=found[-1].reason) for each in found]
    """,
    ),
    bug(
        COUNTS,
        "dead letters of a batch have the attempt of the first",
        """
        def dead_letter(self, leases, reason):
            super().dead_letter(leases, reason)
            with self._file.writing(durable=True) as connection:
                for each in leases:
                    connection.execute("UPDATE queue SET attempt = ? WHERE seq = ?", (leases[0].attempt, each.receipt[0]))
    """,
    ),
    bug(
        COUNTS,
        "a session is pending while its tasks wait a minute at most",
        """
        def is_pending(self, session_id):
            with self._file.reading() as connection:
                row = connection.execute("SELECT count(*) FROM queue WHERE session = ? AND (state = 'ready' OR state IN ('delayed', 'leased') AND due < ?)", (session_id, self._clock.now() + 50)).fetchone()
            return bool(row[0])
    """,
    ),
    bug(
        PARTNERS,
        "a nack is sent with the next receive",
        """
        _kept = None
        def nack(self, leases, delay=0.0):
            self._kept = [*(self._kept or ()), (leases, delay)]
        def _send(self):
            kept, self._kept = self._kept or (), None
            for leases, delay in kept:
                super().nack(leases, delay)
        def receive(self, max_tasks, wait):
            self._send()
            return super().receive(max_tasks, wait)
        def close(self):
            self._send()
            super().close()
    """,
    ),
    bug(
        PARTNERS,
        "an ack is sent with the next receive",
        """
        _kept = None
        def ack(self, leases):
            self._kept = [*(self._kept or ()), *leases]
        def _send(self):
            kept, self._kept = self._kept or (), None
            if kept:
                super().ack(kept)
        def receive(self, max_tasks, wait):
            self._send()
            return super().receive(max_tasks, wait)
        def close(self):
            self._send()
            super().close()
    """,
    ),
)

LATER_SINKS = (
    *(
        sink_bug(
            STORED,
            "put gives up at the first result that is there",
            """
            def put(self, results):
                for each in results:
                    if self.stored([each.task]):
                        return
                    super().put([each])
        """,
            plugin,
        )
        for plugin in ("sqlite sink", "redis sink", "jsonl sink")
    ),
    sink_bug(
        READ,
        "get remembers what it has read",
        """
        _read = None
        def get(self, task_ids):
            self._read = {**super().get(task_ids), **(self._read or {})}
            return {each: self._read[each] for each in task_ids if each in self._read}
    """,
    ),
    sink_bug(
        READ,
        "get remembers what was not there",
        """
        _absent = frozenset()
        def get(self, task_ids):
            found = super().get([each for each in task_ids if each not in self._absent])
            self._absent = self._absent | (set(task_ids) - set(found))
            return found
    """,
    ),
    sink_bug(
        BESIDE,
        "stored remembers what failed",
        """
        _failed = None
        def stored(self, tasks):
            found = super().stored(tasks)
            self._failed = {**(self._failed or {}), **{each.id: each for each in tasks if each.id in set(found)}}
            return [each.id for each in tasks if each.id in self._failed]
    """,
    ),
    sink_bug(
        READ,
        "a page without results of the session ends its scan",
        """
        def scan(self, session_id=None, after=0):
            from itertools import islice
            while page := list(islice(super().scan(None, after), 100)):
                found = [each for each in page if session_id is None or each[1].task.attributes.get('session_id', '') == session_id]
                if not found:
                    return
                yield from found
                after = page[-1][0]
    """,
    ),
    *(
        sink_bug(
            FAILURES,
            f"what replaces a failure keeps its {name}",
            f"""
            def put(self, results):
                there = self.get([each.task.id for each in results])
                super().put([{expression} if each.task.id in there else each for each in results])
        """,
        )
        for name, expression in (
            (
                "init_ms",
                "_outcome(each, init_ms=there[each.task.id].outcome.init_ms if each.outcome.init_ms is None else each.outcome.init_ms)",
            ),
            ("attempt", "replace(each, attempt=there[each.task.id].attempt)"),
            ("environment", "_outcome(each, environment=there[each.task.id].outcome.environment)"),
            ("memory", "_outcome(each, max_memory_mb=there[each.task.id].outcome.max_memory_mb)"),
            (
                "attributes",
                "replace(each, task=replace(each.task, attributes={**each.task.attributes, **{k: v for k, v in there[each.task.id].task.attributes.items() if k != 'generation'}}))",
            ),
        )
    ),
    sink_bug(
        BESIDE,
        "wait_for_more waits five times as long",
        "def wait_for_more(self, seconds):\n    return super().wait_for_more(5 * seconds)",
    ),
    sink_bug(
        FAILURES,
        "failed leaves out what was cancelled",
        "def failed(self):\n    return (each for each in super().failed() if each.outcome.failure is not FailureKind.CANCELLED)",
    ),
    sink_bug(
        STORED,
        "error documents are cut at a few kilobytes",
        "def put(self, results):\n    super().put([_outcome(each, payload=each.outcome.payload[:8192]) if each.outcome.failure else each for each in results])",
    ),
    sink_bug(
        FAILURES,
        "stats count a thousand at most",
        "def stats(self):\n    found = super().stats()\n    return replace(found, stored=min(1000, found.stored))",
    ),
    sink_bug(
        FAILURES,
        "three kinds of failure are counted",
        "def stats(self):\n    found = super().stats()\n    return replace(found, failures=dict(list(found.failures.items())[:3]))",
    ),
    sink_bug(
        FAILURES,
        "failures are counted up to a hundred",
        "def stats(self):\n    found = super().stats()\n    return replace(found, failures={k: min(100, v) for k, v in found.failures.items()})",
    ),
    sink_bug(
        READ,
        "scan goes on after a number of its own session alone",
        """
        def scan(self, session_id=None, after=0):
            found = list(super().scan(session_id, 0))
            numbers = [number for number, _ in found]
            if after and after not in numbers:
                return iter(found)
            return iter(found[numbers.index(after) + 1 :] if after else found)
    """,
    ),
)

LATER_PLANES = (
    report_bug(
        METERS,
        "the duration of a first call has its start in it",
        "replace(report, duration_ms=report.duration_ms + (report.init_ms or 0), billed_ms=report.billed_ms + int(report.init_ms or 0) + 1)",
    ),
    report_bug(METERS, "init_ms is in seconds", "replace(report, init_ms=report.init_ms and report.init_ms / 1000)"),
    report_bug(
        METERS,
        "a first call that fails has no init_ms",
        "replace(report, init_ms=None) if report.failure else report",
    ),
    report_bug(
        METERS,
        "started is by the clock of the place",
        "replace(report, started=report.started - time.timezone)",
    ),
    plane_bug(
        METERS,
        "memory is the most of the whole plane",
        """
        _most = 0
        def invoke(self, batch, timeout):
            for report in super().invoke(batch, timeout):
                if isinstance(report, Outcome):
                    self._most = max(self._most, report.max_memory_mb)
                    report = replace(report, max_memory_mb=self._most)
                yield report
    """,
    ),
    report_bug(
        METERS,
        "a failure is billed its whole timeout",
        "replace(report, billed_ms=int(timeout * 1000) + 1, duration_ms=timeout * 1000) if report.failure is FailureKind.HANDLER_ERROR else report",
    ),
    plane_bug(
        LIMITS,
        "an event that is no object is an error of the plane",
        "def invoke(self, batch, timeout):\n    [{**json.loads(each.task.payload)} for each in batch]\n    yield from super().invoke(batch, timeout)",
    ),
    plane_bug(
        LIMITS,
        "a line break in an event ends it",
        "def invoke(self, batch, timeout):\n    return super().invoke([replace(each, task=replace(each.task, payload=each.task.payload.strip().split(b'\\n')[0])) for each in batch], timeout)",
    ),
    plane_bug(
        LIMITS,
        "the answers of a batch have one limit",
        """
        def invoke(self, batch, timeout):
            size = 0
            for report in super().invoke(batch, timeout):
                size += 0 if isinstance(report, Unstarted) else len(report.payload)
                if isinstance(report, Outcome) and report.failure is None and size > 6_291_556:
                    report = replace(report, failure=FailureKind.PAYLOAD_TOO_LARGE, payload=b'{"errorType": "Function.ResponseSizeTooLarge", "errorMessage": "m"}')
                yield report
    """,
    ),
    plane_bug(
        LIMITS,
        "the events of a batch have one limit",
        """
        def invoke(self, batch, timeout):
            if len(batch) > 1 and sum(len(each.task.payload) for each in batch) > 6_291_456:
                raise Rejected('the request is too large')
            yield from super().invoke(batch, timeout)
    """,
    ),
    plane_bug(
        NEIGHBOURS,
        "close ends what runs on another plane",
        """
        _planes = []
        _running = None
        def open(self):
            super().open()
            self._running = set()
            self._planes.append(self)
        def invoke(self, batch, timeout):
            ids = {each.task.id for each in batch}
            if self._running is not None:
                self._running |= ids
            yield from super().invoke(batch, timeout)
            if self._running is not None:
                self._running -= ids
        def close(self):
            for each in self._planes:
                if each is not self and each._running:
                    each.cancel(list(each._running))
            if self in self._planes:
                self._planes.remove(self)
            super().close()
    """,
    ),
    report_bug(
        KINDS_OF_FAILURE,
        "a trace is told up to its first line",
        "replace(report, payload=json.dumps({**json.loads(report.payload), 'stackTrace': json.loads(report.payload)['stackTrace'][:1]}).encode()) if report.failure is FailureKind.HANDLER_ERROR and 'stackTrace' in json.loads(report.payload) else report",
    ),
    report_bug(
        KINDS_OF_FAILURE,
        "errorType has the module's name",
        "replace(report, payload=report.payload.replace(b'\"ContractError\"', b'\"contract_handler.ContractError\"')) if report.failure is FailureKind.HANDLER_ERROR else report",
    ),
    plane_bug(
        ENDS,
        "the timeout is 10 s at most",
        "def invoke(self, batch, timeout):\n    return super().invoke(batch, min(10, timeout))",
    ),
    plane_bug(
        ENDS,
        "an end in the middle of a batch is reported for the task before as well",
        """
        def invoke(self, batch, timeout):
            last = None
            for report in super().invoke(batch, timeout):
                if last is not None:
                    if isinstance(report, Outcome) and report.failure is FailureKind.EXIT and isinstance(last, Outcome):
                        last = replace(last, failure=FailureKind.EXIT, payload=report.payload)
                    yield last
                last = report
            if last is not None:
                yield last
    """,
    ),
)

LATER_STILL = (
    bug(
        PUTS,
        "a session that was cancelled takes no more tasks",
        """
        _ended = frozenset()
        def cancel(self, session_id=None, task_ids=()):
            self._ended = self._ended | ({session_id} if session_id else set())
            return super().cancel(session_id, task_ids)
        def put(self, tasks):
            super().put([each for each in tasks if each.attributes.get('session_id') not in self._ended])
    """,
    ),
    bug(
        LEASES,
        "what was leased at close comes again as its first attempt",
        """
        def close(self):
            with self._file.writing(durable=False) as connection:
                connection.execute("UPDATE queue SET attempt = 0, state = 'ready', due = NULL WHERE state = 'leased' AND attempt = 1 AND agent = ?", (self.agent,))
            super().close()
    """,
    ),
    sink_bug(
        FAILURES,
        "the event of a failure that was replaced stays",
        """
        _events = None
        def put(self, results):
            self._events = self._events or {}
            there = {each.task.id: each.task.payload for each in self.failed()}
            super().put([replace(each, task=replace(each.task, payload=there.get(each.task.id, each.task.payload))) for each in results])
    """,
    ),
    sink_bug(
        FAILURES,
        "a failure that replaces another is counted under the kind of the first",
        """
        _kinds = {}
        def put(self, results):
            super().put(results)
            for each in results:
                if each.outcome.failure:
                    self._kinds.setdefault(each.task.id, str(each.outcome.failure))
        def stats(self):
            found = super().stats()
            kinds = [self._kinds.get(each.task.id, str(each.outcome.failure)) for each in self.failed()]
            return replace(found, failures={kind: kinds.count(kind) for kind in kinds})
    """,
    ),
    plane_bug(
        LIMITS,
        "the first hundred of a batch are run",
        "def invoke(self, batch, timeout):\n    yield from super().invoke(batch[:100], timeout)",
    ),
    plane_bug(
        NEIGHBOURS,
        "cancel looks at a hundred ids",
        "def cancel(self, task_ids):\n    super().cancel(list(task_ids)[:100])",
    ),
    Mutant(
        "sqlite sink",
        READ,
        "stored passes over the last task of each page",
        edits=(
            (
                "htcgrid/builtin/sqlite_sink.py",
                "tasks[start : start + _ASKED_AT_ONCE]]",
                "tasks[start : start + _ASKED_AT_ONCE - 1]]",
            ),
        ),
    ),
    Mutant(
        "sqlite sink",
        SINK_ERRORS,
        "a result that cannot be stored is Rejected with the ids of its whole batch",
        edits=(
            (
                "htcgrid/builtin/sqlite_sink.py",
                "                refused,\n            )\n",
                "                [result.task.id for result in results],\n            )\n",
            ),
        ),
    ),
    Mutant(
        "redis sink",
        SINK_ERRORS,
        "what the server refuses of a pipeline is not looked at",
        edits=(
            (
                "examples/plugins/redis/htcgrid_redis/sink.py",
                "            batch.execute()\n        if large:",
                "            batch.execute(raise_on_error=False)\n        if large:",
            ),
        ),
    ),
    Mutant(
        "jsonl source",
        END_OF_SOURCE,
        "a last line without an end is not read",
        edits=(
            (
                "htcgrid/builtin/jsonl_lines.py",
                "            if self._rest or self._too_long:\n",
                "            if self._too_long:\n",
            ),
        ),
    ),
    bug(
        BATCHES,
        "of the second ten that extend names it gives the ids of the first ten",
        """
        def extend(self, leases, seconds):
            gone = []
            for start in range(0, len(leases), 10):
                some = leases[start:start + 10]
                lost = set(super().extend(some, seconds))
                gone += [leases[number].task.id for number, lease in enumerate(some) if lease.task.id in lost]
            return gone
    """,
    ),
    Mutant(
        "sqlite source",
        END_OF_SOURCE,
        "with drain it ends while tasks are delayed",
        edits=(
            (
                _SOURCE,
                "return self.config.drain and self._next_due() is None",
                "return self.config.drain and self._next_due() != 0.0",
            ),
        ),
    ),
    Mutant(
        "sqlite source",
        SAME,
        "priorities are checked, and tasks come in the order of submission",
        edits=(
            (
                "htcgrid/builtin/sqlite_statements.py",
                "WHERE q.state = 'ready' ORDER BY q.priority DESC, q.seq",
                "WHERE q.state = 'ready' ORDER BY q.seq",
            ),
        ),
    ),
    Mutant(
        "sqlite source",
        COUNTS,
        "an agent is silent since it came",
        edits=(
            (
                "htcgrid/builtin/sqlite_statements.py",
                "ON CONFLICT (name) DO UPDATE SET seen = excluded.seen",
                "ON CONFLICT (name) DO NOTHING",
            ),
        ),
    ),
    Mutant(
        "sqlite source",
        COUNTS,
        "a lease that is over is counted as leased",
        edits=(
            (_STATS, "state IN ('delayed', 'leased') AND due <= :now", "state = 'delayed' AND due <= :now"),
            (_STATS, "sum(state = 'leased' AND due > :now)", "sum(state = 'leased')"),
        ),
    ),
    Mutant(
        "sqlite source",
        COUNTS,
        "an agent is shown with the leases of all",
        edits=((_STATS, "ON q.agent = a.name AND q.state", "ON q.state"),),
    ),
    bug(
        PUTS,
        "a long attribute fails",
        "def put(self, tasks):\n    if any(len(text) > 1000 for each in tasks for text in each.attributes.values()):\n        raise ValueError('value too long for type character varying(1000)')\n    super().put(tasks)",
    ),
    sink_bug(
        STORED,
        "a long attribute fails",
        "def put(self, results):\n    if any(len(text) > 1000 for each in results for text in each.task.attributes.values()):\n        raise ValueError('value too long for type character varying(1000)')\n    super().put(results)",
    ),
    Mutant(
        "process",
        ENDS,
        "the timeout counts for a batch, of many short tasks too",
        edits=(
            (
                "htcgrid/runtime/environment.py",
                "        looked = heard = time.monotonic()\n",
                "        looked = heard = self._batch_began = time.monotonic()\n",
            ),
            (
                "htcgrid/runtime/environment.py",
                "        if now - running.since >= timeout:\n            return FailureKind.TIMEOUT",
                "        if now - self._batch_began >= timeout:\n            return FailureKind.TIMEOUT",
            ),
        ),
    ),
    Mutant(
        "process",
        METERS,
        "a handler that was stopped has its end as its start",
        edits=(("htcgrid/runtime/environment.py", "started=time.time() - elapsed,", "started=time.time(),"),),
    ),
    Mutant(
        "process",
        NEIGHBOURS,
        "observers are told of no environment that ends by itself",
        edits=(
            (
                "htcgrid/runtime/pool.py",
                "environment.state is State.GONE:\n                self._empty(place)\n",
                "environment.state is State.GONE:\n                self._places[place] = environment.close()\n",
            ),
        ),
    ),
    Mutant(
        "process",
        CANCELS,
        "a cancel is remembered for calls that come later",
        edits=(
            (
                "htcgrid/runtime/calls.py",
                "        cancelled: set[str] = set()\n",
                "        cancelled: set[str] = set(self.__dict__.setdefault('_ever', set()))\n",
            ),
            (
                "htcgrid/runtime/calls.py",
                "        for cancelled in list(",
                "        self.__dict__.setdefault('_ever', set()).update(task_ids)\n        for cancelled in list(",
            ),
        ),
    ),
    plane_bug(
        CANCELS,
        "of two calls with the same task only the first is cancelled",
        """
        def invoke(self, batch, timeout):
            here = self.__dict__.setdefault("_here", set())
            again = {each.task.id for each in batch} & here
            here.update(each.task.id for each in batch)
            names = {each.task.id + "'" * (each.task.id in again): each.task.id for each in batch}
            try:
                sent = [replace(each, task=replace(each.task, id=name)) for name, each in zip(names, batch)]
                for report in super().invoke(sent, timeout):
                    yield replace(report, task_id=names[report.task_id])
            finally:
                here.difference_update(set(names.values()) - again)
    """,
    ),
    plane_bug(
        NEIGHBOURS,
        "what close ends is reported as cancelled",
        """
        _ends = False
        def open(self):
            self._ends = False
            super().open()
        def close(self):
            self._ends = True
            super().close()
        def invoke(self, batch, timeout):
            for report in super().invoke(batch, timeout):
                if self._ends and isinstance(report, Outcome):
                    report = replace(report, failure=FailureKind.CANCELLED)
                yield report
    """,
    ),
    Mutant(
        "process",
        SLOTS,
        "what an abandoned call has begun is still there in the next one",
        edits=(
            (
                "htcgrid/runtime/environment.py",
                "            if self._pending or self.state is State.BUSY:\n                self._pending.clear()\n                self.state = State.GONE\n                self._end()\n",
                "            self._pending.clear()\n",
            ),
        ),
    ),
    Mutant(
        "process",
        SLOTS,
        "each task of a batch fails where the handler cannot be loaded",
        edits=(
            (
                "htcgrid/runtime/environment.py",
                "        yield self._outcome(self._pending.pop(sequence), kind, document, log_tail=log_tail or self._log_tail())\n",
                "        for sequence in list(self._pending):\n            yield self._outcome(self._pending.pop(sequence), kind, document, log_tail=log_tail)\n",
            ),
        ),
    ),
    plane_bug(
        ENDS,
        "a timeout is rounded up to whole seconds",
        "def invoke(self, batch, timeout):\n    yield from super().invoke(batch, -(-timeout // 1))",
    ),
    report_bug(
        METERS,
        "max_memory_mb is the function's memory",
        "replace(report, max_memory_mb=self.function.memory)",
    ),
    report_bug(
        METERS,
        "a handler that was stopped has no memory",
        "replace(report, max_memory_mb=0) if report.failure is FailureKind.TIMEOUT else report",
    ),
)

LATER = (*LATER_SOURCES, *LATER_SINKS, *LATER_PLANES, *LATER_STILL)
