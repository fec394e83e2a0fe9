"""Bugs of sources and sinks in what is seldom looked at: empty calls, long times, second readers, calls that come late."""

from __future__ import annotations

from mutants_subjects import Mutant, bug, sink_bug

BATCHES = "source: only a part of a batch"
SECONDS = "source: seconds"
LEASES = "source: leases"
ARRIVES = "source: what arrives"
PUTS = "source: put, cancel, redrive"
COUNTS = "source: counts and dead letters"
PARTNERS = "source: beside other agents and commands"
ODD = "source: odd but allowed"
ANY = "any: resources and secrets"
STORED = "sink: what is stored"
READ = "sink: what is read"
BESIDE = "sink: beside other agents and commands"
ODD_RESULTS = "sink: odd but allowed"
FAILURES = "sink: counts and failures"
_SQL = "htcgrid/builtin/sqlite_statements.py"
_STATS = "htcgrid/builtin/sqlite_stats.py"


def _edit(kind: str, name: str, file: str, before: str, after: str, plugin: str = "sqlite source") -> Mutant:
    return Mutant(plugin, kind, name, edits=((file, before, after),))


def _fails_on_nothing(method: str, argument: str) -> str:
    """As `IN ()` does, which some databases take for an error of syntax."""
    return f"""
        def {method}(self, {argument}, *more, **others):
            if not {argument}:
                raise ValueError('syntax error at or near ")"')
            return super().{method}({argument}, *more, **others)
    """


DETAILS = (
    # --- calls with nothing in them ---
    *(
        bug(ODD, f"{method} of nothing fails", _fails_on_nothing(method, argument))
        for method, argument in (
            ("ack", "leases"),
            ("nack", "leases"),
            ("extend", "leases"),
            ("put", "tasks"),
            ("redrive", "tasks"),
        )
    ),
    *(
        sink_bug(ODD_RESULTS, f"{method} of nothing fails", _fails_on_nothing(method, argument))
        for method, argument in (("put", "results"), ("stored", "tasks"))
    ),
    # --- seconds ---
    bug(
        SECONDS,
        "a delay past the service's most is none",
        "def nack(self, leases, delay=0.0):\n    super().nack(leases, delay if delay <= 900 else 0)",
    ),
    bug(
        SECONDS,
        "a delay past the service's most fails",
        "def nack(self, leases, delay=0.0):\n    if delay > 43_200:\n        raise ValueError('InvalidParameterValue')\n    super().nack(leases, delay)",
    ),
    bug(
        SECONDS,
        "a lease past the service's most fails",
        "def extend(self, leases, seconds):\n    if seconds > 43_200:\n        raise ValueError('InvalidParameterValue')\n    return super().extend(leases, seconds)",
    ),
    bug(
        SECONDS,
        "milliseconds of a lease are 32 bits",
        "def extend(self, leases, seconds):\n    return super().extend(leases, min(seconds, (int(seconds * 1000) + 2**31) % 2**32 / 1000 - 2**31 / 1000))",
    ),
    bug(
        "source: waits",
        "a wait past the service's most fails",
        "def receive(self, max_tasks, wait):\n    if wait > 20:\n        raise ValueError('WaitTimeSeconds must be 0 to 20')\n    return super().receive(max_tasks, wait)",
    ),
    bug(
        "source: waits",
        "waits are cut to whole seconds",
        "def receive(self, max_tasks, wait):\n    return super().receive(max_tasks, int(wait))",
    ),
    # --- leases ---
    _edit(
        LEASES,
        "a late nack revives what was cancelled",
        _SQL,
        "RETURN = \"UPDATE queue SET state = 'ready', due = NULL WHERE seq = ? AND attempt = ? AND state = 'leased'\"",
        "RETURN = \"UPDATE queue SET state = 'ready', due = NULL WHERE seq = ? AND attempt = ? AND state IN ('leased', 'cancelled')\"",
    ),
    bug(
        LEASES,
        "ack of what was cancelled fails",
        """
        _stopped = set()
        def cancel(self, session_id=None, task_ids=()):
            found = super().cancel(session_id, task_ids)
            self._stopped.update(each.id for each in found)
            return found
        def ack(self, leases):
            assert not self._stopped & {each.task.id for each in leases}, 'no row was updated'
            super().ack(leases)
    """,
    ),
    bug(
        LEASES,
        "extend tells of a cancel once",
        """
        _told = set()
        def extend(self, leases, seconds):
            found = set(super().extend(leases, seconds)) - self._told
            self._told |= found
            return found
    """,
    ),
    Mutant(
        "sqlite source",
        LEASES,
        "extend takes back what was returned",
        edits=(
            (
                _SQL,
                "EXTEND = \"UPDATE queue SET due = ? WHERE seq = ? AND attempt = ? AND state = 'leased'\"",
                "EXTEND = \"UPDATE queue SET due = ?, state = 'leased' WHERE seq = ? AND attempt = ? AND state IN ('leased', 'ready', 'delayed')\"",
            ),
        ),
    ),
    _edit(
        LEASES,
        "a late nack revives a dead letter",
        _SQL,
        "RETURN = \"UPDATE queue SET state = 'ready', due = NULL WHERE seq = ? AND attempt = ? AND state = 'leased'\"",
        "RETURN = \"UPDATE queue SET state = 'ready', due = NULL WHERE seq = ? AND attempt = ? AND state IN ('leased', 'dead')\"",
    ),
    bug(
        LEASES,
        "a second dead_letter fails",
        """
        _dead = set()
        def dead_letter(self, leases, reason):
            for each in leases:
                assert each.receipt not in self._dead, 'no such lease'
                self._dead.add(each.receipt)
            super().dead_letter(leases, reason)
    """,
    ),
    # --- what arrives ---
    bug(
        ARRIVES,
        "ten attributes are the most",
        "def put(self, tasks):\n    super().put([replace(each, attributes=dict(list(each.attributes.items())[:10])) for each in tasks])",
    ),
    bug(
        ARRIVES,
        "the names of attributes are those of a service",
        "def put(self, tasks):\n    super().put([replace(each, attributes={re.sub(r'[^A-Za-z0-9_.-]', '_', k): v for k, v in each.attributes.items()}) for each in tasks])",
    ),
    bug(
        ARRIVES,
        "attributes are cut at 256 characters",
        "def put(self, tasks):\n    super().put([replace(each, attributes={k: v[:256] for k, v in each.attributes.items()}) for each in tasks])",
    ),
    bug(
        ARRIVES,
        "an attribute takes the place of a field",
        "def put(self, tasks):\n    super().put([replace(each, payload=each.attributes['payload'].encode() if 'payload' in each.attributes else each.payload) for each in tasks])",
    ),
    bug(
        ARRIVES,
        "a put of more than four megabytes fails",
        "def put(self, tasks):\n    assert sum(len(each.payload) for each in tasks) < 4_000_000, 'the request is too large'\n    super().put(tasks)",
    ),
    bug(
        ARRIVES,
        "a batch of large events is cut",
        """
        def receive(self, max_tasks, wait):
            found, size = [], 0
            for each in super().receive(max_tasks, wait):
                size += len(each.task.payload)
                found.append(each if size < 4_000_000 else replace(each, task=replace(each.task, payload=each.task.payload[:1_000_000])))
            return found
    """,
    ),
    # --- put, cancel, redrive ---
    bug(
        PUTS,
        "what was cancelled cannot be redriven",
        """
        _stopped = set()
        def cancel(self, session_id=None, task_ids=()):
            found = super().cancel(session_id, task_ids)
            self._stopped.update(each.id for each in found)
            return found
        def redrive(self, tasks):
            super().redrive([each for each in tasks if each.id not in self._stopped])
    """,
    ),
    bug(PUTS, "redrive takes a thousand", "def redrive(self, tasks):\n    super().redrive(tasks[:1000])"),
    bug(
        PUTS,
        "a dead letter that is redriven goes on counting",
        """
        _dead = {}
        def dead_letter(self, leases, reason):
            super().dead_letter(leases, reason)
            self._dead.update({each.task.id: each.attempt for each in leases})
        def receive(self, max_tasks, wait):
            return [replace(each, attempt=each.attempt + self._dead.get(each.task.id, 0)) for each in super().receive(max_tasks, wait)]
    """,
    ),
    bug(
        PARTNERS,
        "two submitters of the same tasks fail",
        """
        _now = set()
        def put(self, tasks):
            ids = {each.id for each in tasks}
            if ids & self._now:
                raise RuntimeError('UNIQUE constraint failed')
            self._now.update(ids)
            try:
                time.sleep(0.005)
                super().put(tasks)
            finally:
                self._now.difference_update(ids)
    """,
    ),
    bug(
        PARTNERS,
        "two submitters at once lose a task",
        """
        _busy = threading.Lock()
        def put(self, tasks):
            if self._busy.acquire(blocking=False):
                try:
                    time.sleep(0.005)
                    super().put(tasks)
                finally:
                    self._busy.release()
            else:
                super().put(tasks[:-1] or tasks[:0] or [])
    """,
    ),
    # --- counts and dead letters ---
    _edit(
        COUNTS,
        "tasks without session are in no session",
        _STATS,
        "FROM queue GROUP BY session",
        "FROM queue WHERE session IS NOT NULL GROUP BY session",
    ),
    _edit(
        COUNTS,
        "tasks without session are those of None",
        _STATS,
        "SELECT coalesce(session, ''),",
        "SELECT coalesce(session, 'None'),",
    ),
    _edit(
        COUNTS,
        "the oldest task is one that runs",
        _STATS,
        "OR state = 'leased' AND due <= ?)",
        "OR state = 'leased' AND ? > 0)",
    ),
    _edit(
        COUNTS,
        "the oldest task is none where all are delayed",
        _STATS,
        "WHERE state IN ('ready', 'delayed') OR",
        "WHERE state = 'ready' OR",
    ),
    _edit(
        COUNTS, "agents are silent since 1970", _STATS, "Holder(leased, max(0.0, now - seen))", "Holder(leased, seen)"
    ),
    _edit(
        COUNTS,
        "agents are silent for milliseconds",
        _STATS,
        "Holder(leased, max(0.0, now - seen))",
        "Holder(leased, 1000 * (now - seen) + 9000)",
    ),
    bug(
        COUNTS,
        "a long reason fails",
        "def dead_letter(self, leases, reason):\n    if len(reason) > 1000:\n        raise ValueError('value too long for type character varying(1000)')\n    super().dead_letter(leases, reason)",
    ),
    bug(
        COUNTS,
        "a NUL in a reason fails",
        "def dead_letter(self, leases, reason):\n    if '\\0' in reason:\n        raise ValueError('A string literal cannot contain NUL (0x00) characters.')\n    super().dead_letter(leases, reason)",
    ),
    bug(
        COUNTS,
        "who reads dead letters holds up the others",
        """
        _one = threading.RLock()
        def dead_letters(self):
            with self._one:
                yield from super().dead_letters()
        def put(self, tasks):
            with self._one:
                super().put(tasks)
        def redrive(self, tasks):
            with self._one:
                super().redrive(tasks)
        def ack(self, leases):
            with self._one:
                super().ack(leases)
    """,
    ),
    bug(
        COUNTS,
        "a redrive ends the reading of dead letters",
        """
        _version = 0
        def redrive(self, tasks):
            super().redrive(tasks)
            self._version += 1
        def dead_letters(self):
            version = self._version
            for each in super().dead_letters():
                if version != self._version:
                    return
                yield each
    """,
    ),
    bug(
        COUNTS,
        "two that read dead letters share a cursor",
        """
        _shared = None
        def dead_letters(self):
            if self._shared is None:
                self._shared = iter(list(super().dead_letters()))
            for each in self._shared:
                yield each
            self._shared = None
    """,
    ),
    bug(
        ANY,
        "a reading of dead letters that is left open keeps its connection",
        """
        _left = 0
        def dead_letters(self):
            if self._left >= 10:
                raise Unavailable('the pool has no connection left')
            self._left += 1
            yield from super().dead_letters()
            self._left -= 1
    """,
    ),
    # --- sinks ---
    sink_bug(
        STORED,
        "logs are cut at a kilobyte",
        "def put(self, results):\n    super().put([_outcome(each, log_tail=each.outcome.log_tail[-1024:]) for each in results])",
    ),
    sink_bug(
        STORED,
        "events of failures are parsed and written again",
        "def put(self, results):\n    super().put([replace(each, task=replace(each.task, payload=json.dumps(json.loads(each.task.payload)).encode())) for each in results])",
    ),
    sink_bug(
        STORED,
        "events of failures are cut",
        "def put(self, results):\n    super().put([replace(each, task=replace(each.task, payload=each.task.payload[:400_000])) for each in results])",
    ),
    sink_bug(
        STORED,
        "ten attributes are kept",
        "def put(self, results):\n    super().put([replace(each, task=replace(each.task, attributes=dict(list(each.task.attributes.items())[:10]))) for each in results])",
    ),
    sink_bug(
        STORED,
        "attributes are stripped and small",
        "def put(self, results):\n    super().put([replace(each, task=replace(each.task, attributes={k.lower(): v.strip() for k, v in each.task.attributes.items()})) for each in results])",
    ),
    sink_bug(
        STORED,
        "a put of more than four megabytes fails",
        "def put(self, results):\n    assert sum(len(each.outcome.payload) for each in results) < 4_000_000, 'the request is too large'\n    super().put(results)",
    ),
    sink_bug(
        READ,
        "get ends after four megabytes",
        """
        def get(self, task_ids):
            found, size = {}, 0
            for key, each in super().get(task_ids).items():
                size += len(each.outcome.payload)
                if size > 4_000_000:
                    break
                found[key] = each
            return found
    """,
    ),
    sink_bug(
        READ,
        "scan ends after four megabytes",
        """
        def scan(self, session_id=None, after=0):
            size = 0
            for number, each in super().scan(session_id, after):
                size += len(each.outcome.payload)
                if size > 4_000_000:
                    return
                yield number, each
    """,
    ),
    sink_bug(
        ODD_RESULTS,
        "get of an id twice fails",
        "def get(self, task_ids):\n    if len(set(task_ids)) < len(task_ids):\n        raise ValueError('Provided list of item keys contains duplicates')\n    return super().get(task_ids)",
    ),
    sink_bug(
        ODD_RESULTS,
        "stored of a task twice fails",
        "def stored(self, tasks):\n    if len({each.id for each in tasks}) < len(tasks):\n        raise ValueError('Provided list of item keys contains duplicates')\n    return super().stored(tasks)",
    ),
    sink_bug(
        ODD_RESULTS,
        "sessions are told apart without regard to case",
        """
        def scan(self, session_id=None, after=0):
            for number, each in super().scan(None, after):
                if session_id is None or each.task.attributes.get('session_id', '').lower() == session_id.lower():
                    yield number, each
    """,
    ),
    sink_bug(
        ODD_RESULTS,
        "sessions are cut at a colon",
        """
        def scan(self, session_id=None, after=0):
            for number, each in super().scan(None, after):
                if session_id is None or each.task.attributes.get('session_id', '').partition(':')[0] == session_id:
                    yield number, each
    """,
    ),
    sink_bug(
        BESIDE,
        "two that scan share a cursor",
        """
        _rows = None
        def scan(self, session_id=None, after=0):
            self._rows = super().scan(session_id, after)
            while (row := next(self._rows, None)) is not None:
                yield row
    """,
    ),
    sink_bug(
        BESIDE,
        "two that list failures share a cursor",
        """
        _rows = None
        def failed(self):
            self._rows = super().failed()
            while (row := next(self._rows, None)) is not None:
                yield row
    """,
    ),
    *(
        sink_bug(
            ANY,
            f"a {name} that is left open keeps its connection",
            f"""
            _left = 0
            def {name}(self, *given, **named):
                if self._left >= 10:
                    raise Unavailable('the pool has no connection left')
                self._left += 1
                yield from super().{name}(*given, **named)
                self._left -= 1
        """,
        )
        for name in ("scan", "failed")
    ),
    sink_bug(
        BESIDE,
        "who is told of what was stored tells no other thread",
        """
        _number = -1
        def wait_for_more(self, seconds):
            before = self._number
            changes = self._file.changes
            self._number = changes.number if before < 0 else changes.wait(before, seconds)
            return self._number != before
    """,
    ),
    sink_bug(
        BESIDE,
        "a thread's first call of wait_for_more says no",
        "def wait_for_more(self, seconds):\n    return getattr(self._seen, 'number', -1) >= 0 and super().wait_for_more(seconds) or (super().wait_for_more(0) and False)",
    ),
    sink_bug(
        BESIDE,
        "who waits is not told of what it has put itself",
        """
        _own = False
        def put(self, results):
            super().put(results)
            self._own = True
        def wait_for_more(self, seconds):
            found = super().wait_for_more(seconds)
            if found and self._own:
                self._own = False
                return super().wait_for_more(0)
            return found
    """,
    ),
    sink_bug(
        BESIDE,
        "a reader sees what was there when it was opened",
        """
        _only = None
        def open_to_read(self):
            super().open_to_read()
            self._only = {each.task.id for _, each in self.scan()}
        def get(self, task_ids):
            return super().get([each for each in task_ids if self._only is None or each in self._only])
    """,
    ),
    sink_bug(
        BESIDE,
        "a reader has no scan",
        """
        _reads = False
        def open_to_read(self):
            super().open_to_read()
            self._reads = True
        def scan(self, session_id=None, after=0):
            if self._reads:
                raise RuntimeError('the sink is not open')
            return super().scan(session_id, after)
    """,
    ),
    sink_bug(
        ANY,
        "a reader of a place that is not there finds nothing",
        """
        _nothing = False
        def open_to_read(self):
            try:
                super().open_to_read()
            except HtcgridError:
                self._nothing = True
        def failed(self):
            return iter(()) if self._nothing else super().failed()
    """,
    ),
    sink_bug(
        ANY,
        "a reader leaves a file open",
        "def open_to_read(self):\n    import os\n    super().open_to_read()\n    os.open('/dev/null', 0)",
    ),
    sink_bug(
        FAILURES,
        "stats have kinds that are not there",
        "def stats(self):\n    found = super().stats()\n    return replace(found, failures={**(found.failures or {}), 'handler_error': 1})",
    ),
    sink_bug(
        FAILURES,
        "a large run is cut",
        "def add_run(self, document):\n    super().add_run(document[:4096])",
    ),
    # --- types, threads, and readers ---
    *(
        sink_bug(
            READ,
            f"{what} is read as a {kind}",
            f"def get(self, task_ids):\n    from decimal import Decimal\n    return {{key: _outcome(each, {what}={kind}(each.outcome.{what})) for key, each in super().get(task_ids).items()}}",
        )
        for what, kind in (("payload", "bytearray"), ("billed_ms", "Decimal"), ("billed_ms", "float"))
    ),
    bug(
        ARRIVES,
        "events arrive as memoryviews",
        "def receive(self, max_tasks, wait):\n    return [replace(each, task=replace(each.task, payload=memoryview(each.task.payload))) for each in super().receive(max_tasks, wait)]",
    ),
    sink_bug(READ, "every_result is a page", "def every_result(self):\n    return list(super().every_result())[:100]"),
    sink_bug(
        READ,
        "every_result has no times",
        "def every_result(self):\n    return (_outcome(each, started=0.0, duration_ms=0.0) for each in super().every_result())",
    ),
    sink_bug(
        FAILURES,
        "failed says attempt 1",
        "def failed(self):\n    return (replace(each, attempt=1) for each in super().failed())",
    ),
    sink_bug(
        BESIDE,
        "failed pages by number of rows",
        """
        def failed(self):
            offset = 0
            while rows := list(super().failed())[offset : offset + 500]:
                yield from rows
                offset += len(rows)
    """,
    ),
    *(
        sink_bug(
            BESIDE,
            f"a reader has no {name}",
            f"""
            _reads = False
            def open_to_read(self):
                super().open_to_read()
                self._reads = True
            def {name}(self, *given):
                assert not self._reads, 'the pool is not open'
                return super().{name}(*given)
        """,
        )
        for name in ("runs", "stats", "every_result", "has_failed", "wait_for_more")
    ),
    *(
        Mutant(
            plugin,
            kind,
            f"{name} knows the thread of open alone",
            f"""
            def open(self):
                super().open()
                self._thread = threading.get_ident()
            def {name}(self, *given):
                assert threading.get_ident() == self._thread, 'made in another thread'
                return super().{name}(*given)
        """,
        )
        for plugin, kind, name in (
            ("sqlite sink", BESIDE, "stored"),
            ("sqlite sink", BESIDE, "stats"),
            ("sqlite source", PARTNERS, "ack"),
        )
    ),
    *(
        Mutant(
            plugin,
            kind,
            "agents that begin at once make the table twice",
            """
        def open(self):
            is_new = not self.config.path.exists()
            time.sleep(0.2)
            if is_new and self.config.path.exists():
                raise RuntimeError('the table exists already')
            super().open()
    """,
        )
        for plugin, kind in (("sqlite sink", BESIDE), ("sqlite source", PARTNERS))
    ),
    bug(
        PARTNERS,
        "agents wait in turn",
        "_one = threading.Lock()\ndef receive(self, max_tasks, wait):\n    with self._one:\n        return super().receive(max_tasks, wait)",
    ),
    _edit(
        PUTS,
        "a returned task has no priority",
        _SQL,
        "RETURN = \"UPDATE queue SET state = 'ready', due = NULL WHERE",
        "RETURN = \"UPDATE queue SET state = 'ready', due = NULL, priority = 0 WHERE",
    ),
    _edit(
        PUTS,
        "a task whose lease is over has no priority",
        _SQL,
        "LEASE_OVER = \"UPDATE queue SET state = 'ready', due = NULL WHERE",
        "LEASE_OVER = \"UPDATE queue SET state = 'ready', due = NULL, priority = 0 WHERE",
    ),
    bug(
        PUTS,
        "put is all or none of each hundred",
        "def put(self, tasks):\n    for start in range(0, len(tasks), 100):\n        super().put(tasks[start : start + 100])",
    ),
    bug(
        LEASES,
        "leases end and are said to last",
        "def open(self):\n    super().open()\n    self.lease_seconds = None",
    ),
    bug(
        LEASES,
        "lease_seconds is not that of the config",
        "def open(self):\n    super().open()\n    self.lease_seconds = 60.0",
    ),
    *(
        bug(
            BATCHES,
            f"{method} of a thousand fails",
            f"def {method}(self, leases, *more):\n    assert len(leases) < 1000, 'too many variables'\n    return super().{method}(leases, *more)",
        )
        for method in ("nack", "extend")
    ),
    *(
        bug(
            PUTS,
            f"{method} of what is done fails",
            f"""
            _done = frozenset()
            def ack(self, leases):
                super().ack(leases)
                self._done |= {{each.task.id for each in leases}}
            def {method}(self, tasks):
                if any(each.id in self._done for each in tasks):
                    raise RuntimeError('UNIQUE constraint failed')
                super().{method}(tasks)
        """,
        )
        for method in ("put", "redrive")
    ),
    bug(
        PUTS,
        "redrive keeps the event that was there",
        """
        _known = {}
        def put(self, tasks):
            super().put(tasks)
            self._known.update({each.id: each.payload for each in tasks})
        def redrive(self, tasks):
            super().redrive([replace(each, payload=self._known.get(each.id, each.payload)) for each in tasks])
    """,
    ),
    _edit(PUTS, "cancel by id takes dead letters", _SQL, "WHERE t.id = ? AND q.state <> 'dead'", "WHERE t.id = ?"),
    bug(
        COUNTS,
        "dead letters lose their attributes",
        "def dead_letters(self):\n    return (replace(each, task=replace(each.task, attributes={})) for each in super().dead_letters())",
    ),
    *(
        bug(
            LEASES,
            f"{method} returns the leases of all agents",
            f"""
            def {method}(self):
                {"super().open()" if method == "open" else "pass"}
                if not self._seen and {method == "close"}:
                    return super().close()
                with self._file.writing(durable=False) as connection:
                    connection.execute("UPDATE queue SET state = 'ready', due = NULL WHERE state = 'leased'")
                {"super().close()" if method == "close" else ""}
        """,
        )
        for method in ("open", "close")
    ),
    *(
        bug(
            PUTS,
            f"what is redriven has no {column}",
            f"""
            def redrive(self, tasks):
                super().redrive(tasks)
                with self._file.writing(durable=True) as connection:
                    for each in tasks:
                        connection.execute('UPDATE queue SET {column} = {value} WHERE seq IN (SELECT seq FROM tasks WHERE id = ?)', (each.id,))
        """,
        )
        for column, value in (("session", "NULL"), ("priority", "0"))
    ),
    bug(
        ODD,
        "a quote in a session's name is a part of the query",
        "def cancel(self, session_id=None, task_ids=()):\n    assert \"'\" not in (session_id or ''), 'syntax error'\n    return super().cancel(session_id, task_ids)",
    ),
    # --- what was done before, and pages of what changes ---
    _edit(
        PUTS,
        "a redrive of the same generation replaces the task",
        "htcgrid/builtin/sqlite_source.py",
        "attributes_of(row[1]))) < generation_of(task):",
        "attributes_of(row[1]))) <= generation_of(task):",
    ),
    _edit(
        COUNTS,
        "dead letters are the oldest that wait",
        _STATS,
        "WHERE state IN ('ready', 'delayed') OR",
        "WHERE state IN ('ready', 'delayed', 'dead') OR",
    ),
    _edit(
        COUNTS,
        "cancelled tasks are the oldest that wait",
        _STATS,
        "WHERE state IN ('ready', 'delayed') OR",
        "WHERE state IN ('ready', 'delayed', 'cancelled') OR",
    ),
    bug(
        COUNTS,
        "pages of dead letters begin at a row",
        """
        def dead_letters(self):
            start = 0
            while page := list(super().dead_letters())[start : start + 50]:
                yield from page
                start += 50
    """,
    ),
    bug(
        ODD,
        "a batch comes in reverse",
        "def receive(self, max_tasks, wait):\n    return super().receive(max_tasks, wait)[::-1]",
    ),
    sink_bug(FAILURES, "the first page of runs is given", "def runs(self):\n    yield from list(super().runs())[:100]"),
    sink_bug(
        FAILURES,
        "an answer is unknown to a later generation",
        "def stored(self, tasks):\n    return super().stored([task for task in tasks if 'generation' not in task.attributes])",
    ),
    sink_bug(
        READ,
        "who waits is told of new tasks alone",
        """
        _known = -1
        def wait_for_more(self, seconds):
            now = super().stats().stored
            before, self._known = self._known, now
            return now != before
    """,
    ),
    # --- both ---
    Mutant(
        "redis source",
        ANY,
        "a password is logged",
        "def open(self):\n    import logging\n    logging.getLogger('mine').info('at %s', self.config.url.get_secret_value())\n    super().open()",
    ),
    Mutant(
        "redis source",
        ANY,
        "a note tells a password",
        "def stats(self, *, brief=False):\n    return QueueStats(note=f'read from {self.config.url.get_secret_value()}')",
    ),
    Mutant(
        "redis source",
        ANY,
        "advice tells a password",
        "def advise(self, attempts):\n    yield f'look at {self.config.url.get_secret_value()}'",
    ),
    Mutant(
        "sqs",
        ANY,
        "usage is forgotten when it is told",
        """
        _told = 0
        def usage(self):
            found = super().usage()
            now = sum(found.requests.values())
            before, self._told = self._told, now
            return replace(found, requests={'sqs': now - before})
    """,
    ),
    Mutant("sqs", ANY, "usage counts nothing", "def usage(self):\n    return replace(super().usage(), requests={})"),
)
