"""Bugs of planes in what is seldom looked at: batches of unlike tasks, ids that come again, the end of time."""

from __future__ import annotations

from mutants_subjects import plane_bug, report_bug

BATCHES = "plane: batches and slots"
CONTEXT = "plane: context"
CANCELS = "plane: cancel"
METERS = "plane: metering"
FAILURES = "plane: kinds of failure"
TIMES = "plane: timeouts and ends"
LOGS = "plane: logs"


PLANE_DETAILS = (
    plane_bug(
        CONTEXT,
        "all of a batch have the attributes of the first",
        "def invoke(self, batch, timeout):\n    return super().invoke([replace(each, task=replace(each.task, attributes=batch[0].task.attributes)) for each in batch], timeout)",
    ),
    plane_bug(
        CONTEXT,
        "all of a batch have the attempt of the first",
        "def invoke(self, batch, timeout):\n    return super().invoke([replace(each, attempt=batch[0].attempt) for each in batch], timeout)",
    ),
    report_bug(
        CONTEXT,
        "the time left stands still",
        "replace(report, payload=re.sub(rb'(\"remaining_ms\": (\\d+), \"remaining_later_ms\": )\\d+', rb'\\1\\2', report.payload))",
    ),
    plane_bug(
        CONTEXT,
        "ten attributes are handed over",
        "def invoke(self, batch, timeout):\n    return super().invoke([replace(each, task=replace(each.task, attributes=dict(list(each.task.attributes.items())[:10]))) for each in batch], timeout)",
    ),
    plane_bug(
        CONTEXT,
        "attributes go through a shell's variables",
        "def invoke(self, batch, timeout):\n    return super().invoke([replace(each, task=replace(each.task, attributes={re.sub(r'[^A-Za-z0-9_]', '_', k): v for k, v in each.task.attributes.items()})) for each in batch], timeout)",
    ),
    plane_bug(
        CONTEXT,
        "values of variables are cut at an equals sign",
        "def __init__(self, config, function):\n    super().__init__(config, function.model_copy(update={'environment': {k: v.split('=')[0] for k, v in function.environment.items()}}))\n    self._asked = function\ndef open(self):\n    super().open()\n    self.function = self._asked",
    ),
    plane_bug(
        CONTEXT,
        "a shell reads the values of variables",
        "def __init__(self, config, function):\n    super().__init__(config, function.model_copy(update={'environment': {k: re.sub(r'[\"\\'$]', '', v) for k, v in function.environment.items()}}))\n    self._asked = function\ndef open(self):\n    super().open()\n    self.function = self._asked",
    ),
    plane_bug(
        CANCELS,
        "cancel stops at the first id that is not here",
        """
        _here = set()
        def invoke(self, batch, timeout):
            self._here.update(each.task.id for each in batch)
            yield from super().invoke(batch, timeout)
        def cancel(self, task_ids):
            for each in task_ids:
                if each not in self._here:
                    return
                super().cancel([each])
    """,
    ),
    plane_bug(
        CANCELS,
        "a task that was cancelled once never runs again",
        """
        _stopped = set()
        def cancel(self, task_ids):
            self._stopped.update(task_ids)
            super().cancel(task_ids)
        def invoke(self, batch, timeout):
            for each in batch:
                if each.task.id in self._stopped:
                    yield Outcome(each.task.id, b'{"errorType": "Cancelled", "errorMessage": "m"}', FailureKind.CANCELLED)
            left = [each for each in batch if each.task.id not in self._stopped]
            yield from super().invoke(left, timeout) if left else ()
    """,
    ),
    plane_bug(
        CANCELS,
        "a cancel cancels what is behind as well",
        """
        def invoke(self, batch, timeout):
            stopped = False
            for report in super().invoke(batch, timeout):
                stopped |= isinstance(report, Outcome) and report.failure is FailureKind.CANCELLED
                yield Outcome(report.task_id, b'{"errorType": "Cancelled", "errorMessage": "m"}', FailureKind.CANCELLED) if stopped else report
    """,
    ),
    plane_bug(
        BATCHES,
        "a timeout is that of all that are behind",
        """
        def invoke(self, batch, timeout):
            late = False
            reports = list(super().invoke(batch, timeout))
            late = any(isinstance(each, Outcome) and each.failure is FailureKind.TIMEOUT for each in reports)
            for report in reports:
                yield Outcome(report.task_id, b'{"errorType": "Sandbox.Timedout", "errorMessage": "m"}', FailureKind.TIMEOUT) if late and isinstance(report, Unstarted) else report
    """,
    ),
    plane_bug(
        TIMES,
        "milliseconds of a timeout are 32 bits",
        "def invoke(self, batch, timeout):\n    if timeout * 1000 > 2**31 - 1:\n        raise OverflowError('timeout is too large')\n    yield from super().invoke(batch, timeout)",
    ),
    report_bug(
        METERS,
        "exits are not measured",
        "replace(report, started=0.0, duration_ms=0.0, billed_ms=0) if report.failure is FailureKind.EXIT else report",
    ),
    report_bug(
        METERS,
        "what was cancelled is not billed",
        "replace(report, duration_ms=0.0, billed_ms=0) if report.failure is FailureKind.CANCELLED else report",
    ),
    plane_bug(
        METERS,
        "environments are named by their place",
        """
        _places = {}
        _gone = []
        def invoke(self, batch, timeout):
            for report in super().invoke(batch, timeout):
                if isinstance(report, Outcome):
                    name = report.environment
                    if name not in self._places:
                        self._places[name] = self._gone.pop() if self._gone else f'place-{len(self._places)}'
                    if report.failure in (FailureKind.EXIT, FailureKind.TIMEOUT):
                        self._gone.append(self._places[name])
                    report = replace(report, environment=self._places[name])
                yield report
    """,
    ),
    report_bug(
        METERS,
        "an exit names no environment",
        "replace(report, environment='') if report.failure is FailureKind.EXIT else report",
    ),
    report_bug(
        FAILURES,
        "the trace is one text",
        "replace(report, payload=json.dumps({**json.loads(report.payload), 'stackTrace': [{'line': 1}]}).encode()) if report.failure is FailureKind.HANDLER_ERROR and b'stackTrace' in report.payload else report",
    ),
    report_bug(
        FAILURES,
        "signals are told by their numbers",
        "replace(report, payload=report.payload.replace(b'signal: terminated', b'exit status 143')) if report.failure is FailureKind.EXIT else report",
    ),
    report_bug(
        LOGS,
        "a line without its end is no log",
        "replace(report, log_tail=report.log_tail[:report.log_tail.rfind(b'\\n') + 1])",
    ),
    report_bug(
        LOGS,
        "logs that are not UTF-8 are lost",
        "replace(report, log_tail=report.log_tail if report.log_tail.decode(errors='replace').encode() == report.log_tail else b'')",
    ),
    report_bug(METERS, "bills are floats", "replace(report, billed_ms=float(report.billed_ms))"),
    report_bug(
        METERS,
        "memory is that of now",
        "replace(report, max_memory_mb=min(report.max_memory_mb, 12) if report.duration_ms < 20 else report.max_memory_mb)",
    ),
    plane_bug(
        FAILURES,
        "the answer to an id is kept",
        """
        _kept = {}
        def invoke(self, batch, timeout):
            yield from (self._kept[each.task.id] for each in batch if each.task.id in self._kept)
            left = [each for each in batch if each.task.id not in self._kept]
            for report in super().invoke(left, timeout) if left else ():
                if isinstance(report, Outcome) and report.failure is None:
                    self._kept[report.task_id] = report
                yield report
    """,
    ),
    plane_bug(
        CONTEXT,
        "events are sent as Latin-1",
        "def invoke(self, batch, timeout):\n    yield from super().invoke([replace(each, task=replace(each.task, payload=each.task.payload.decode('latin-1').encode())) for each in batch], timeout)",
    ),
    plane_bug(
        FAILURES,
        "the end of a new environment is an init_error",
        """
        def invoke(self, batch, timeout):
            known = self.__dict__.setdefault('_known', set())
            for report in super().invoke(batch, timeout):
                if isinstance(report, Outcome):
                    is_first = report.environment not in known
                    known.add(report.environment)
                    if is_first and report.failure is FailureKind.EXIT:
                        report = replace(report, failure=FailureKind.INIT_ERROR)
                yield report
    """,
    ),
)
