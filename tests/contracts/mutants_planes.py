"""Bugs of planes. Bodies are of a subclass that takes the place of the plugin's class."""

from __future__ import annotations

from mutants_subjects import Mutant, plane_bug, report_bug

PLUGIN = "process"
_CONTEXT, _FRAMED, _REQUESTS, _ENVIRONMENT, _POOL, _WORKER, _MARKED = (
    f"htcgrid/runtime/{name}.py"
    for name in ("context", "framed", "request_frames", "environment", "pool", "worker", "marked_output")
)


def _edit(kind: str, name: str, file: str, before: str, after: str) -> Mutant:
    return Mutant(PLUGIN, kind, name, edits=((file, before, after),))


ANSWERS = "plane: answers and events"
TIMES = "plane: timeouts and ends"
FAILURES = "plane: kinds of failure"
BATCHES = "plane: batches and slots"
CONTEXT = "plane: context"
LOGS = "plane: logs"
OUTPUT = "plane: output"
METERS = "plane: metering"
CANCELS = "plane: cancel"
WHOLE = "plane: open, close, neighbours"

PLANES = (
    # --- answers and events ---
    report_bug(ANSWERS, "answers are cut at a megabyte", "replace(report, payload=report.payload[:1_100_000])"),
    report_bug(
        ANSWERS,
        "the last bytes of a large answer are lost",
        "replace(report, payload=report.payload[:-8] + b'yyyyyyy\"') if len(report.payload) > 5_000_000 else report",
    ),
    report_bug(
        ANSWERS,
        "answers lose their keys' order",
        "replace(report, payload=json.dumps(json.loads(report.payload), sort_keys=True).encode())",
    ),
    report_bug(
        ANSWERS,
        "whole floats become integers",
        "replace(report, payload=re.sub(rb'(\\d)\\.0\\b', rb'\\1', report.payload))",
    ),
    report_bug(
        ANSWERS,
        "numbers become floats",
        "replace(report, payload=json.dumps(json.loads(report.payload, parse_int=float)).encode()) if b'value' not in report.payload and report.payload[:1].isdigit() else report",
    ),
    plane_bug(
        ANSWERS,
        "a large event is Rejected",
        "def invoke(self, batch, timeout):\n    if any(len(each.task.payload) > 6_291_456 for each in batch):\n        raise Rejected('too large')\n    yield from super().invoke(batch, timeout)",
    ),
    plane_bug(
        ANSWERS,
        "events past a megabyte are too large",
        """
        def invoke(self, batch, timeout):
            small = [each for each in batch if len(each.task.payload) <= 2_000_000]
            for each in batch:
                if each not in small:
                    yield Outcome(each.task.id, b'{"errorType": "RequestTooLargeException", "errorMessage": "m"}', FailureKind.PAYLOAD_TOO_LARGE)
            yield from super().invoke(small, timeout) if small else ()
    """,
    ),
    report_bug(
        ANSWERS,
        "null is an empty answer",
        "replace(report, payload=b'' if report.payload == b'null' else report.payload)",
    ),
    plane_bug(
        WHOLE,
        "each environment belongs to the thread that called first",
        """
        def invoke(self, batch, timeout):
            owners = self.__dict__.setdefault("_owners", set())
            if len(owners) < self.max_concurrency:
                owners.add(threading.get_native_id())
            if threading.get_native_id() not in owners:
                raise Unavailable("each environment belongs to another thread")
            yield from super().invoke(batch, timeout)
    """,
    ),
    # --- timeouts and ends ---
    plane_bug(
        TIMES,
        "the timeout is halved",
        "def invoke(self, batch, timeout):\n    return super().invoke(batch, timeout / 2)",
    ),
    plane_bug(
        TIMES,
        "the timeout is doubled",
        "def invoke(self, batch, timeout):\n    return super().invoke(batch, timeout * 2)",
    ),
    plane_bug(
        TIMES,
        "the timeout of the function is taken",
        "def invoke(self, batch, timeout):\n    return super().invoke(batch, self.function.timeout)",
    ),
    _edit(
        TIMES,
        "the timeout is stopped twice as late, and told right",
        _ENVIRONMENT,
        "if now - running.since >= timeout:",
        "if now - running.since >= 2 * timeout:",
    ),
    _edit(
        TIMES,
        "the context's time left is twice too long",
        _REQUESTS,
        "timeout_ms, pack, request_id = ceil(timeout * 1000)",
        "timeout_ms, pack, request_id = ceil(timeout * 2000)",
    ),
    _edit(
        TIMES,
        "the context's time left is half",
        _REQUESTS,
        "timeout_ms, pack, request_id = ceil(timeout * 1000)",
        "timeout_ms, pack, request_id = ceil(timeout * 500)",
    ),
    plane_bug(
        TIMES,
        "an end is seen at the timeout",
        """
        def invoke(self, batch, timeout):
            began = time.monotonic()
            for report in super().invoke(batch, timeout):
                if isinstance(report, Outcome) and report.failure is FailureKind.EXIT:
                    time.sleep(max(0, timeout - (time.monotonic() - began)))
                yield report
    """,
    ),
    plane_bug(
        TIMES,
        "an end is seen five seconds later",
        """
        def invoke(self, batch, timeout):
            for report in super().invoke(batch, timeout):
                if isinstance(report, Outcome) and report.failure is FailureKind.EXIT:
                    time.sleep(6)
                yield report
    """,
    ),
    _edit(
        TIMES,
        "the memory's limit is half",
        _ENVIRONMENT,
        "return self._weigh() > self._function.memory",
        "return self._weigh() > self._function.memory / 2",
    ),
    _edit(
        TIMES,
        "the memory's limit is doubled",
        _ENVIRONMENT,
        "return self._weigh() > self._function.memory",
        "return self._weigh() > self._function.memory * 2",
    ),
    # --- kinds of failure ---
    report_bug(
        FAILURES,
        "a timeout is an exit",
        "replace(report, failure=FailureKind.EXIT) if report.failure is FailureKind.TIMEOUT else report",
    ),
    report_bug(
        FAILURES,
        "an exit is a handler_error",
        "replace(report, failure=FailureKind.HANDLER_ERROR) if report.failure is FailureKind.EXIT else report",
    ),
    report_bug(
        FAILURES,
        "an error that looks like an answer is one",
        "replace(report, failure=None) if report.failure is FailureKind.HANDLER_ERROR else report",
    ),
    report_bug(
        FAILURES,
        "an answer that looks like an error is one",
        "replace(report, failure=FailureKind.HANDLER_ERROR) if report.failure is None and b'errorMessage' in report.payload else report",
    ),
    report_bug(
        FAILURES,
        "a cancelled task is a timeout",
        "replace(report, failure=FailureKind.TIMEOUT) if report.failure is FailureKind.CANCELLED else report",
    ),
    report_bug(
        FAILURES,
        "an init_error is an exit",
        "replace(report, failure=FailureKind.EXIT) if report.failure is FailureKind.INIT_ERROR else report",
    ),
    report_bug(
        FAILURES,
        "errors lose their trace",
        "replace(report, payload=json.dumps({k: v for k, v in json.loads(report.payload).items() if k != 'stackTrace'}).encode()) if report.failure is FailureKind.HANDLER_ERROR else report",
    ),
    plane_bug(
        FAILURES,
        "a handler that failed is tried again",
        """
        def invoke(self, batch, timeout):
            reports = list(super().invoke(batch, timeout))
            yield from super().invoke(batch, timeout) if any(isinstance(each, Outcome) and each.failure is FailureKind.HANDLER_ERROR for each in reports) else reports
    """,
    ),
    # --- batches and slots ---
    plane_bug(
        BATCHES,
        "the last of a batch is forgotten",
        "def invoke(self, batch, timeout):\n    yield from super().invoke(batch[:-1] or batch, timeout)",
    ),
    plane_bug(
        BATCHES,
        "a batch is answered in order, to the wrong ids",
        """
        def invoke(self, batch, timeout):
            reports = list(super().invoke(batch, timeout))
            for lease, report in zip(reversed(batch), reports):
                yield replace(report, task_id=lease.task.id) if isinstance(report, Outcome) else report
    """,
    ),
    plane_bug(
        BATCHES,
        "a batch shares one timeout",
        """
        def invoke(self, batch, timeout):
            until = time.monotonic() + timeout
            for lease in batch:
                yield from super().invoke([lease], max(0.05, until - time.monotonic()))
    """,
    ),
    plane_bug(
        BATCHES,
        "tasks behind a slow one wait",
        "def invoke(self, batch, timeout):\n    for lease in batch:\n        yield from super().invoke([lease], timeout)",
    ),
    plane_bug(
        BATCHES,
        "an error loses its slot",
        """
        _lost = 0
        _slots = None
        def invoke(self, batch, timeout):
            if self._slots is None:
                self._slots = threading.Semaphore(self.max_concurrency)
            self._slots.acquire()
            failed = False
            for report in super().invoke(batch, timeout):
                failed |= isinstance(report, Outcome) and report.failure is FailureKind.HANDLER_ERROR
                yield report
            if not failed:
                self._slots.release()
    """,
    ),
    plane_bug(
        BATCHES,
        "an abandoned iteration loses its slot",
        """
        _slots = None
        def invoke(self, batch, timeout):
            if self._slots is None:
                self._slots = threading.Semaphore(self.max_concurrency)
            self._slots.acquire()
            yield from super().invoke(batch, timeout)
            self._slots.release()
    """,
    ),
    plane_bug(
        BATCHES,
        "one environment more is declared than there is",
        "def open(self):\n    super().open()\n    self.max_concurrency += 1",
    ),
    plane_bug(
        BATCHES,
        "invocations run one after the other",
        "_one = threading.Lock()\ndef invoke(self, batch, timeout):\n    with self._one:\n        yield from super().invoke(batch, timeout)",
    ),
    _edit(
        BATCHES,
        "an environment that has ended is kept",
        _POOL,
        "if environment is not None and environment.state is State.GONE:",
        "if False:",
    ),
    # --- context ---
    _edit(CONTEXT, "an attribute shadows the attempt", _CONTEXT, "if name not in _KNOWN}", "if True}"),
    _edit(CONTEXT, "the attempt is always 1", _CONTEXT, '"attempt":{attempt}', '"attempt":1'),
    _edit(CONTEXT, "the attempt is a text", _CONTEXT, '"attempt":{attempt}', '"attempt":"{attempt}"'),
    _edit(
        CONTEXT,
        "a task without session has none in its context",
        _CONTEXT,
        'f\',"session_id":{session},',
        '(f\',"session_id":{session}\' if session != \'""\' else "") + f\',',
    ),
    plane_bug(
        CONTEXT,
        "variables of the function do not arrive",
        "def __init__(self, config, function):\n    super().__init__(config, function.model_copy(update={'environment': {}}))\n    self._asked = function\ndef open(self):\n    super().open()\n    self.function = self._asked",
    ),
    _edit(
        CONTEXT,
        "the request id is the same for all",
        _REQUESTS,
        "{request_id(task_id)}",
        "{request_id('')}",
    ),
    # --- output ---
    _edit(OUTPUT, "nothing is handed over", _POOL, "environment.output = self.output", "pass"),
    _edit(
        OUTPUT,
        "only the end of a piece is handed over",
        _MARKED,
        "self._output.write(self._pending.get(sequence), self._environment, lines)",
        "self._output.write(self._pending.get(sequence), self._environment, lines[-4096:])",
    ),
    _edit(
        OUTPUT,
        "what stands behind the last mark is lost",
        _MARKED,
        "self._hand_on(self._lines.add(text), before[0])",
        "self._lines.add(text)",
    ),
    _edit(
        OUTPUT,
        "a line without an end is lost",
        _MARKED,
        "self._hand_on(whole + lines.rest(), sequence)",
        "self._hand_on(whole, sequence), lines.rest()",
    ),
    _edit(
        OUTPUT,
        "a line without an end is the next task's",
        _MARKED,
        "self._hand_on(whole + lines.rest(), sequence)",
        "self._hand_on(whole, sequence)",
    ),
    _edit(
        OUTPUT,
        "tasks are handed over with the lease before",
        _MARKED,
        "(sequence,) = shared_memory.MARK_SEQUENCE.unpack_from(each)",
        "sequence = shared_memory.MARK_SEQUENCE.unpack_from(each)[0] - 1",
    ),
    _edit(
        OUTPUT,
        "output is handed over without its task",
        _MARKED,
        "self._hand_on(self._lines.add(text), before[0])",
        "self._hand_on(self._lines.add(text), 0)",
    ),
    _edit(
        OUTPUT,
        "what an ended handler printed last is lost",
        _FRAMED,
        "        if self._marked is not None:\n            self._marked.end()",
        "        self._marked = None",
    ),
    # --- logs ---
    report_bug(LOGS, "logs are lost", "replace(report, log_tail=b'')"),
    report_bug(
        LOGS, "logs of failures are lost", "replace(report, log_tail=b'' if report.failure else report.log_tail)"
    ),
    report_bug(
        LOGS,
        "logs of timeouts are lost",
        "replace(report, log_tail=b'' if report.failure is FailureKind.TIMEOUT else report.log_tail)",
    ),
    report_bug(LOGS, "the beginning of a log is kept", "replace(report, log_tail=report.log_tail[:100])"),
    report_bug(LOGS, "a log has START and END", "replace(report, log_tail=b'START RequestId: 1\\n' + report.log_tail)"),
    plane_bug(
        LOGS,
        "a silent task gets the log before it",
        """
        _last = b''
        def invoke(self, batch, timeout):
            for report in super().invoke(batch, timeout):
                if isinstance(report, Outcome):
                    self._last = report.log_tail or self._last
                    report = replace(report, log_tail=self._last)
                yield report
    """,
    ),
    plane_bug(
        LOGS,
        "the logs of a batch are put together",
        """
        def invoke(self, batch, timeout):
            log = b''
            for report in super().invoke(batch, timeout):
                if isinstance(report, Outcome):
                    log += report.log_tail
                    report = replace(report, log_tail=log[-4096:])
                yield report
    """,
    ),
    # --- metering ---
    report_bug(METERS, "durations are in seconds", "replace(report, duration_ms=report.duration_ms / 1000)"),
    report_bug(METERS, "durations are in microseconds", "replace(report, duration_ms=report.duration_ms * 1000)"),
    report_bug(METERS, "billed in seconds", "replace(report, billed_ms=report.billed_ms // 1000)"),
    report_bug(METERS, "billed in microseconds", "replace(report, billed_ms=report.billed_ms * 1000)"),
    report_bug(METERS, "billed a millisecond too little", "replace(report, billed_ms=int(report.duration_ms) - 1)"),
    report_bug(
        METERS, "failures are not billed", "replace(report, billed_ms=0 if report.failure else report.billed_ms)"
    ),
    report_bug(
        METERS,
        "failures have no times",
        "replace(report, started=0.0, duration_ms=0.0, billed_ms=0) if report.failure else report",
    ),
    report_bug(
        METERS,
        "timeouts are not measured",
        "replace(report, duration_ms=0.0, billed_ms=0) if report.failure is FailureKind.TIMEOUT else report",
    ),
    report_bug(
        METERS, "started is when it ended", "replace(report, started=report.started + report.duration_ms / 1000)"
    ),
    report_bug(METERS, "started is in milliseconds", "replace(report, started=report.started * 1000)"),
    report_bug(METERS, "memory is in kilobytes", "replace(report, max_memory_mb=report.max_memory_mb * 1024)"),
    report_bug(METERS, "memory is in gigabytes", "replace(report, max_memory_mb=report.max_memory_mb // 1024)"),
    report_bug(METERS, "memory is the limit", "replace(report, max_memory_mb=1)"),
    report_bug(METERS, "environments have one name", "replace(report, environment='worker')"),
    report_bug(
        METERS, "each invocation is an environment", "replace(report, environment=report.environment + report.task_id)"
    ),
    report_bug(METERS, "every start is cold", "replace(report, init_ms=12.0)"),
    report_bug(METERS, "no start is cold", "replace(report, init_ms=None)"),
    report_bug(
        METERS,
        "failures have no environment",
        "replace(report, environment='' if report.failure else report.environment)",
    ),
    # --- cancel ---
    plane_bug(CANCELS, "cancel does nothing", "def cancel(self, task_ids):\n    pass"),
    plane_bug(
        CANCELS, "cancel stops the first only", "def cancel(self, task_ids):\n    super().cancel(list(task_ids)[:1])"
    ),
    plane_bug(
        CANCELS,
        "cancel stops everything",
        """
        _here = frozenset()
        def invoke(self, batch, timeout):
            self._here |= {each.task.id for each in batch}
            yield from super().invoke(batch, timeout)
        def cancel(self, task_ids):
            super().cancel(self._here)
    """,
    ),
    plane_bug(
        CANCELS,
        "cancel takes three seconds",
        "def cancel(self, task_ids):\n    threading.Timer(3, super().cancel, [task_ids]).start()",
    ),
    plane_bug(
        CANCELS,
        "cancel is loud about what is not here",
        "def cancel(self, task_ids):\n    if any('not-here' in each for each in task_ids):\n        raise KeyError(*task_ids)\n    super().cancel(task_ids)",
    ),
    # --- open, close, neighbours ---
    plane_bug(
        WHOLE,
        "close leaves a thread",
        "def invoke(self, batch, timeout):\n    threading.Timer(60, print).start()\n    yield from super().invoke(batch, timeout)",
    ),
    plane_bug(
        WHOLE,
        "close leaves its environments",
        """
        def close(self):
            for place in self._places:
                type(self)._kept = getattr(type(self), '_kept', []) + [place]
            self._places = []
            self._fork_server, type(self)._kept_server = None, self._fork_server
            super().close()
    """,
    ),
    plane_bug(
        WHOLE,
        "close leaves a folder",
        "def open(self):\n    import tempfile\n    tempfile.mkdtemp(prefix='plane-')\n    super().open()",
    ),
    plane_bug(
        WHOLE,
        "a timeout takes its neighbours along",
        """
        def invoke(self, batch, timeout):
            for report in super().invoke(batch, timeout):
                if isinstance(report, Outcome) and report.failure is FailureKind.TIMEOUT:
                    for place in self._places:
                        if place is not None:
                            __import__('os').kill(place._process.pid, 9)
                yield report
    """,
    ),
    plane_bug(
        WHOLE,
        "an end takes its neighbours along",
        """
        def invoke(self, batch, timeout):
            for report in super().invoke(batch, timeout):
                if isinstance(report, Outcome) and report.failure is FailureKind.EXIT:
                    for place in self._places:
                        if place is not None:
                            __import__('os').kill(place._process.pid, 9)
                yield report
    """,
    ),
    plane_bug(
        WHOLE,
        "there is one plane in a process",
        "_open = []\ndef open(self):\n    if self._open:\n        raise Rejected('another is open')\n    self._open.append(self)\n    super().open()\ndef close(self):\n    super().close()\n    if self in self._open:\n        self._open.remove(self)",
    ),
)
