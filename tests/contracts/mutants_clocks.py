"""Bugs about clocks, pages, numbers and outages: those that authors on a database or an HTTP service make."""

from __future__ import annotations

from mutants_subjects import Mutant

MEMORY, SQLITE, REDIS, PROCESS = "memory source", "sqlite source", "redis source", "process"
SQLITE_SINK, REDIS_SINK, MEMORY_SINK = "sqlite sink", "redis sink", "memory sink"


def _bug(kind: str, name: str, plugins: tuple[str, ...], body: str) -> list[Mutant]:
    return [Mutant(plugin, kind, name, body) for plugin in plugins]


CLOCK = "source: clocks"
SAME = "source: pages, ids, priorities, generations"
NUMBERS = "sink: numbers and what changes"
QUEUED = "plane: behind an engine's queue"

CLOCKS = (
    *_bug(
        CLOCK,
        "extend goes by the clock on the wall",
        (SQLITE,),
        "def extend(self, leases, seconds):\n    return super().extend(leases, seconds - time.timezone)",
    ),
    *_bug(
        CLOCK,
        "nack goes by the clock on the wall",
        (SQLITE,),
        "def nack(self, leases, delay=0.0):\n    super().nack(leases, delay - time.timezone if delay else 0)",
    ),
    *_bug(
        CLOCK,
        "a delay is cut to whole seconds",
        (SQLITE, MEMORY, REDIS),
        "def nack(self, leases, delay=0.0):\n    super().nack(leases, int(delay))",
    ),
    *_bug(
        CLOCK,
        "extend is cut to whole seconds",
        (SQLITE, MEMORY, REDIS),
        "def extend(self, leases, seconds):\n    return super().extend(leases, int(seconds))",
    ),
    Mutant(
        MEMORY,
        CLOCK,
        "an expired lease is counted as leased",
        edits=(
            ("htcgrid/builtin/memory.py", "sum(until > now for until in self._until.values())", "len(self._until)"),
        ),
    ),
    Mutant(
        SQLITE,
        CLOCK,
        "a delay that is over is counted as delayed",
        edits=(
            (
                "htcgrid/builtin/sqlite_stats.py",
                "state IN ('delayed', 'leased') AND due <= :now",
                "state = 'leased' AND due <= :now",
            ),
            ("htcgrid/builtin/sqlite_stats.py", "sum(state = 'delayed' AND due > :now)", "sum(state = 'delayed')"),
        ),
    ),
    Mutant(
        SQLITE,
        CLOCK,
        "the oldest task is the youngest",
        edits=(("htcgrid/builtin/sqlite_stats.py", "(SELECT min(seq) FROM queue", "(SELECT max(seq) FROM queue"),),
    ),
    # --- pages, ids, priorities, generations ---
    *_bug(
        SAME,
        "cancel takes a thousand of a session",
        (SQLITE, MEMORY),
        "def cancel(self, session_id=None, task_ids=()):\n    return super().cancel(session_id, task_ids)[:1000]",
    ),
    *_bug(
        SAME,
        "dead letters are a page",
        (SQLITE,),
        "def dead_letters(self):\n    from itertools import islice\n    return islice(super().dead_letters(), 500)",
    ),
    *_bug(
        SAME,
        "cancel forgets the session",
        (SQLITE, MEMORY),
        "def cancel(self, session_id=None, task_ids=()):\n"
        "    return [Task(task.id, b'') for task in super().cancel(session_id, task_ids)]",
    ),
    Mutant(
        SQLITE,
        SAME,
        "cancel takes ids for patterns",
        edits=(
            ("htcgrid/builtin/sqlite_statements.py", "WHERE t.id = ? AND q.state", "WHERE t.id LIKE ? AND q.state"),
        ),
    ),
    Mutant(
        SQLITE,
        SAME,
        "the attributes of a task are compared as text",
        edits=(
            (
                "htcgrid/builtin/sqlite_source.py",
                "(attributes_of(there[0]), there[1]) != (dict(task.attributes), task.payload)",
                "there != (text_of(task.attributes), task.payload)",
            ),
        ),
    ),
    *_bug(
        SAME,
        "put makes a leased task ready",
        (MEMORY,),
        """
        def put(self, tasks):
            super().put(tasks)
            self.nack([lease for lease in self._tasks.values() if lease.task in tasks])
    """,
    ),
    *_bug(
        SAME,
        "the lowest priority comes first",
        (SQLITE,),
        "def _priority(self, task):\n    return -super()._priority(task)",
    ),
    *_bug(
        SAME,
        "priorities are ordered as texts",
        (SQLITE,),
        "def _priority(self, task):\n"
        "    return int.from_bytes(task.attributes.get('priority', '0')[:4].ljust(4).encode()[:4])",
    ),
    *_bug(
        SAME,
        "a priority that is no number fails",
        (SQLITE,),
        "def put(self, tasks):\n    [int(task.attributes.get('priority', '0')) for task in tasks]\n    super().put(tasks)",
    ),
    *_bug(
        SAME,
        "generations are compared as texts",
        (REDIS,),
        """
        def redrive(self, tasks):
            known = self.__dict__.setdefault('_generations', {})
            new = [task for task in tasks if known.get(task.id, '') < task.attributes.get('generation', '0')]
            known.update({task.id: task.attributes.get('generation', '0') for task in new})
            super().redrive([task for task in new if task.attributes.get('generation', '0') >= '2'])
    """,
    ),
    *_bug(
        SAME,
        "redrive stops at what is there",
        (SQLITE,),
        """
        def redrive(self, tasks):
            for task in tasks:
                before = self.stats().states.waiting
                super().redrive([task])
                if self.stats().states.waiting == before:
                    return
    """,
    ),
    *_bug(
        SAME,
        "ids are stripped",
        (SQLITE,),
        "def put(self, tasks):\n    super().put([replace(task, id=task.id.strip()) for task in tasks])",
    ),
    *_bug(
        SAME,
        "ids are cut at 128 characters",
        (SQLITE,),
        "def put(self, tasks):\n    super().put([replace(task, id=task.id[:128]) for task in tasks])",
    ),
    *_bug(
        SAME,
        "what was away stays away",
        (REDIS,),
        """
        def receive(self, max_tasks, wait):
            if getattr(self, '_broken', None):
                raise self._broken
            try:
                return super().receive(max_tasks, wait)
            except Unavailable as error:
                self._broken = error
                raise
    """,
    ),
    # --- sinks ---
    *_bug(
        NUMBERS,
        "bills are 32 bits",
        (SQLITE_SINK, MEMORY_SINK, REDIS_SINK),
        "def put(self, results):\n"
        "    super().put([_outcome(each, billed_ms=min(each.outcome.billed_ms, 2**31 - 1)) for each in results])",
    ),
    *_bug(
        NUMBERS,
        "an init_ms of 0 is none",
        (SQLITE_SINK, REDIS_SINK),
        "def put(self, results):\n    super().put([_outcome(each, init_ms=each.outcome.init_ms or None) for each in results])",
    ),
    *_bug(
        NUMBERS,
        "the names of environments are cut",
        (SQLITE_SINK, REDIS_SINK),
        "def put(self, results):\n"
        "    super().put([_outcome(each, environment=each.outcome.environment[:64]) for each in results])",
    ),
    Mutant(
        SQLITE_SINK,
        NUMBERS,
        "what replaces a failure has its number",
        edits=(
            ("htcgrid/builtin/sqlite_sink.py", "number = (SELECT max(number) + 1 FROM results), session", "session"),
        ),
    ),
    *_bug(
        NUMBERS,
        "generations are one digit",
        (SQLITE_SINK, REDIS_SINK),
        """
        def put(self, results):
            super().put([self._short(each) for each in results])

        def _short(self, each):
            given = each.task.attributes
            if 'generation' not in given:
                return each
            return replace(each, task=replace(each.task, attributes={**given, 'generation': given['generation'][0]}))
    """,
    ),
    *_bug(
        NUMBERS,
        "stats are kept for five seconds",
        (SQLITE_SINK,),
        """
        def stats(self):
            if time.monotonic() - getattr(self, '_at', -9) > 5:
                self._at, self._kept = time.monotonic(), super().stats()
            return self._kept
    """,
    ),
    *_bug(
        NUMBERS,
        "the rate is a minute's",
        (SQLITE_SINK,),
        "def stats(self):\n    found = super().stats()\n    return replace(found, per_second=found.per_second * 60)",
    ),
    *_bug(
        NUMBERS,
        "has_failed looks at the last hundred",
        (SQLITE_SINK,),
        """
        def has_failed(self):
            last = max((number for number, _ in self.scan()), default=0)
            return any(each.outcome.failure for _, each in self.scan(after=last - 100))
    """,
    ),
    # --- planes ---
    *_bug(
        QUEUED,
        "durations are with the queue",
        (PROCESS,),
        """
        def invoke(self, batch, timeout):
            called = time.time()
            for each in super().invoke(batch, timeout):
                yield replace(each, duration_ms=(time.time() - called) * 1000) if isinstance(each, Outcome) else each
    """,
    ),
    *_bug(
        QUEUED,
        "timeouts count from the call",
        (PROCESS,),
        """
        def invoke(self, batch, timeout):
            called = time.time()
            for each in super().invoke(batch, timeout):
                if isinstance(each, Outcome) and time.time() - called > timeout + 0.05:
                    each = replace(each, failure=FailureKind.TIMEOUT, payload=b'{"errorType": "Sandbox.Timedout", "errorMessage": ""}')
                yield each
    """,
    ),
    *_bug(
        QUEUED,
        "cancel knows plain ids alone",
        (PROCESS,),
        "def cancel(self, task_ids):\n    super().cancel([each for each in task_ids if re.fullmatch(r'[\\w-]+', each)])",
    ),
    *_bug(
        QUEUED,
        "a slow request is sent again after five seconds",
        (PROCESS,),
        """
        def invoke(self, batch, timeout):
            called = time.monotonic()
            reports = list(super().invoke(batch, timeout))
            if time.monotonic() - called > 5 and len(batch) == 1 and reports[0].failure is None:
                reports = list(super().invoke(batch, timeout))
            yield from reports
    """,
    ),
)
