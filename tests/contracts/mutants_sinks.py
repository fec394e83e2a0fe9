"""Bugs of sinks. Bodies are of a subclass that takes the place of the plugin's class."""

from __future__ import annotations

from mutants_subjects import Mutant

MEMORY, SQLITE, JSONL, DYNAMODB, S3, REDIS = (
    "memory sink",
    "sqlite sink",
    "jsonl sink",
    "dynamodb",
    "s3",
    "redis sink",
)
_SQLITE_FILE, _JSONL_FILE, _LINE_FILE = (
    f"htcgrid/builtin/{name}.py" for name in ("sqlite_sink", "jsonl_sink", "jsonl_results")
)


def _bug(kind: str, name: str, plugins: tuple[str, ...], body: str) -> list[Mutant]:
    return [Mutant(plugin, kind, name, body) for plugin in plugins]


def _put(kind: str, name: str, plugins: tuple[str, ...], expression: str) -> list[Mutant]:
    """What is put is changed first."""
    return _bug(kind, name, plugins, f"def put(self, results):\n    super().put([{expression} for result in results])")


def _got(kind: str, name: str, plugins: tuple[str, ...], expression: str) -> list[Mutant]:
    """What is read is changed."""
    return _bug(
        kind,
        name,
        plugins,
        f"def get(self, task_ids):\n    return {{key: {expression} for key, result in super().get(task_ids).items()}}",
    )


def _edit(plugin: str, kind: str, name: str, file: str, before: str, after: str) -> Mutant:
    return Mutant(plugin, kind, name, edits=((file, before, after),))


STORED = "sink: what is stored"
ONCE = "sink: once, and for good"
READ = "sink: what is read"
GENERATIONS = "sink: generations"
COUNTS = "sink: counts and failures"
ERRORS = "sink: errors"

SINKS = (
    # --- what is stored ---
    *_bug(STORED, "put stores the first only", (SQLITE, S3), "def put(self, results):\n    super().put(results[:1])"),
    *_bug(
        STORED,
        "put forgets the last",
        (JSONL, DYNAMODB),
        "def put(self, results):\n    super().put(results[:-1] or results)",
    ),
    *_bug(
        STORED,
        "the answers of a batch are mixed up",
        (SQLITE, JSONL),
        "def put(self, results):\n    super().put([_outcome(result, payload=results[0].outcome.payload) if result.outcome.failure is None and results[0].outcome.failure is None else result for result in results])",
    ),
    *_put(STORED, "answers are stripped", (SQLITE, MEMORY), "_outcome(result, payload=result.outcome.payload.strip())"),
    *_put(
        STORED,
        "answers are cut at a megabyte",
        (SQLITE, JSONL, REDIS),
        "_outcome(result, payload=result.outcome.payload[:1_000_000])",
    ),
    *_put(
        STORED,
        "escaped NULs are dropped",
        (SQLITE,),
        r"_outcome(result, payload=result.outcome.payload.replace(b'\\u0000', b''))",
    ),
    *_put(
        STORED,
        "text is normalised",
        (SQLITE, S3),
        "_outcome(result, payload=unicodedata.normalize('NFC', result.outcome.payload.decode(errors='replace')).encode())",
    ),
    *_put(
        STORED,
        "failures' documents are written again",
        (SQLITE,),
        "_outcome(result, payload=json.dumps({'errorType': json.loads(result.outcome.payload)['errorType']}).encode()) if result.outcome.failure else result",
    ),
    *_put(
        STORED,
        "logs that are not UTF-8 are mended",
        (SQLITE, DYNAMODB),
        "_outcome(result, log_tail=result.outcome.log_tail.decode(errors='replace').encode())",
    ),
    *_put(
        STORED,
        "NULs in logs are dropped",
        (SQLITE, REDIS),
        r"_outcome(result, log_tail=result.outcome.log_tail.replace(b'\0', b''))",
    ),
    *_put(STORED, "init_ms None becomes 0", (SQLITE, REDIS), "_outcome(result, init_ms=result.outcome.init_ms or 0.0)"),
    *_put(
        STORED,
        "started is cut to seconds",
        (SQLITE, MEMORY),
        "_outcome(result, started=float(int(result.outcome.started)))",
    ),
    *_put(
        STORED,
        "durations are stored in seconds",
        (SQLITE,),
        "_outcome(result, duration_ms=result.outcome.duration_ms / 1000)",
    ),
    *_put(STORED, "every attempt is 1", (DYNAMODB,), "replace(result, attempt=1)"),
    *_put(
        STORED,
        "attributes are dropped",
        (SQLITE, REDIS, S3),
        "replace(result, task=replace(result.task, attributes={k: v for k, v in result.task.attributes.items() if k in {'session_id', 'generation'}}))",
    ),
    *_put(
        STORED,
        "every failure is a handler_error",
        (REDIS,),
        "_outcome(result, failure=result.outcome.failure and FailureKind.HANDLER_ERROR)",
    ),
    *_put(
        STORED,
        "a cancelled task is stored as an answer",
        (SQLITE,),
        "_outcome(result, failure=None) if result.outcome.failure is FailureKind.CANCELLED else result",
    ),
    _edit(
        JSONL,
        STORED,
        "line breaks in an answer break the line",
        _LINE_FILE,
        'return text.replace("\\n", " ").replace("\\r", " ") if "\\n" in text or "\\r" in text else text',
        "return text",
    ),
    *_put(
        STORED,
        "ids are made small",
        (SQLITE, REDIS),
        "replace(result, task=replace(result.task, id=result.task.id.lower()), outcome=replace(result.outcome, task_id=result.task.id.lower()))",
    ),
    # --- once, and for good ---
    *_bug(
        ONCE,
        "put stores later",
        (SQLITE,),
        """
        _kept = ()
        def put(self, results):
            self._kept = [*self._kept, *results]
        def close(self):
            if self._kept:
                super().put(self._kept)
                self._kept = ()
            super().close()
    """,
    ),
    *_bug(
        ONCE,
        "put stores in a thread of its own",
        (SQLITE, REDIS),
        "def put(self, results):\n    threading.Timer(0.3, super().put, [results]).start()",
    ),
    *_bug(
        ONCE,
        "the same id twice in a batch fails",
        (SQLITE,),
        "def put(self, results):\n    assert len({result.task.id for result in results}) == len(results)\n    super().put(results)",
    ),
    _edit(
        SQLITE,
        ONCE,
        "the same id again fails",
        _SQLITE_FILE,
        "    ON CONFLICT (task_id) DO {}\n",
        "",
    ),
    _edit(
        JSONL,
        ONCE,
        "the same id twice in a batch is two lines",
        _JSONL_FILE,
        "if any(self._known.get_all(ids)) or len(set(ids.task_ids)) < len(results):",
        "if any(self._known.get_all(ids)):",
    ),
    _edit(
        JSONL,
        ONCE,
        "the same id again is two lines",
        _JSONL_FILE,
        "if self._known.get(task_id) is None or self._is_redriven(result.task)",
        "if True",
    ),
    *_bug(
        ONCE,
        "threads share a buffer",
        (SQLITE,),
        """
        _pending = ()
        def put(self, results):
            self._pending = list(results)
            time.sleep(0.002)
            super().put(self._pending)
    """,
    ),
    # --- what is read ---
    *_bug(
        READ,
        "stored knows what this sink has put alone",
        (SQLITE, REDIS, DYNAMODB),
        """
        _mine = frozenset()
        def put(self, results):
            super().put(results)
            self._mine |= {result.task.id for result in results}
        def stored(self, tasks):
            return [each for each in super().stored(tasks) if each in self._mine]
    """,
    ),
    *_bug(
        READ,
        "stored names answers alone",
        (SQLITE,),
        "def stored(self, tasks):\n    found = self.get([task.id for task in tasks])\n    return [key for key in super().stored(tasks) if found[key].outcome.failure is None]",
    ),
    *_bug(
        READ,
        "stored looks at a page",
        (SQLITE, MEMORY, REDIS),
        "def stored(self, tasks):\n    return super().stored(tasks[:100])",
    ),
    *_bug(
        READ,
        "stored names a task of the same beginning",
        (MEMORY,),
        "def stored(self, tasks):\n    return [task.id for task in tasks if any(key.startswith(task.id[:10]) for key in self.results)]",
    ),
    *_bug(
        READ,
        "get reads a page",
        (SQLITE, REDIS, DYNAMODB),
        "def get(self, task_ids):\n    return super().get(list(task_ids)[:100])",
    ),
    *_got(
        READ,
        "get makes logs text",
        (SQLITE,),
        "_outcome(result, log_tail=result.outcome.log_tail.decode(errors='ignore').encode())",
    ),
    *_got(READ, "get forgets the environment", (SQLITE, REDIS), "_outcome(result, environment='')"),
    *_got(READ, "get forgets attempts", (S3,), "replace(result, attempt=1)"),
    *_bug(
        READ,
        "get fails on an id that has no result",
        (MEMORY,),
        "def get(self, task_ids):\n    return {key: self.results[key] for key in task_ids}",
    ),
    *_bug(
        READ,
        "scan gives the last one again",
        (SQLITE, MEMORY),
        "def scan(self, session_id=None, after=0):\n    return super().scan(session_id, max(0, after - 1))",
    ),
    *_bug(
        READ,
        "scan ignores the session",
        (SQLITE, MEMORY),
        "def scan(self, session_id=None, after=0):\n    return super().scan(None, after)",
    ),
    *_bug(
        READ,
        "scan ends after a page",
        (SQLITE, MEMORY),
        "def scan(self, session_id=None, after=0):\n    from itertools import islice\n    return islice(super().scan(session_id, after), 100)",
    ),
    *_bug(
        READ,
        "scan of a session numbers from 1",
        (MEMORY,),
        "def scan(self, session_id=None, after=0):\n    found = super().scan(session_id, after)\n    return found if session_id is None else ((number, each) for number, (_, each) in enumerate(found, 1))",
    ),
    *_bug(
        READ,
        "scan leaves out failures",
        (SQLITE,),
        "def scan(self, session_id=None, after=0):\n    return ((number, each) for number, each in super().scan(session_id, after) if each.outcome.failure is None)",
    ),
    *_bug(
        READ,
        "numbers are given before they are committed",
        (SQLITE,),
        """
        _hold = ()
        def put(self, results):
            for result in results:
                super().put([result])
        def scan(self, session_id=None, after=0):
            last = after
            for number, each in super().scan(session_id, after):
                if number > last + 1 and number % 7 == 0:
                    continue
                last = number
                if number % 11 != 0 or after:
                    yield number, each
    """,
    ),
    *_bug(
        READ,
        "a reader needs the place for itself",
        (SQLITE,),
        "def open_to_read(self):\n    raise Rejected('another run is writing to it')",
    ),
    # --- generations ---
    _edit(
        SQLITE,
        GENERATIONS,
        "a failure is replaced by one of its own generation",
        _SQLITE_FILE,
        "results.generation < excluded.generation",
        "results.generation <= excluded.generation",
    ),
    _edit(
        SQLITE,
        GENERATIONS,
        "a later generation replaces nothing",
        _SQLITE_FILE,
        "results.generation < excluded.generation",
        "results.generation > excluded.generation",
    ),
    _edit(
        SQLITE,
        GENERATIONS,
        "a later generation replaces a success",
        _SQLITE_FILE,
        "WHERE results.failure IS NOT NULL AND results.generation",
        "WHERE results.generation",
    ),
    _edit(
        SQLITE,
        GENERATIONS,
        "stored knows no generations",
        _SQLITE_FILE,
        "is_answer or generation >= generations[task_id]",
        "generation >= 0",
    ),
    _edit(
        JSONL,
        GENERATIONS,
        "a later generation replaces nothing",
        _JSONL_FILE,
        "return bool((state - 1) & 1) and (state - 1) >> 1 < generation_of(task)",
        "return False",
    ),
    *(
        _edit(
            SQLITE,
            GENERATIONS,
            f"what replaces a failure keeps its {column}",
            _SQLITE_FILE,
            f" {column} = excluded.{column},",
            f" {column} = results.{column},",
        )
        for column in ("log_tail", "started")
    ),
    # --- counts and failures ---
    *_bug(
        COUNTS,
        "stats counts successes alone",
        (SQLITE,),
        "def stats(self):\n    found = super().stats()\n    return replace(found, stored=found.stored - sum((found.failures or {}).values()))",
    ),
    *_bug(
        COUNTS,
        "failures are counted under one kind",
        (SQLITE,),
        "def stats(self):\n    found = super().stats()\n    return replace(found, failures={'handler_error': sum((found.failures or {}).values())} if found.failures else found.failures)",
    ),
    *_bug(
        COUNTS,
        "each kind of failure is counted once",
        (SQLITE,),
        "def stats(self):\n    found = super().stats()\n    return replace(found, failures=dict.fromkeys(found.failures or {}, 1))",
    ),
    *_bug(
        COUNTS,
        "failed lists a page",
        (SQLITE, REDIS, DYNAMODB),
        "def failed(self):\n    from itertools import islice\n    return islice(super().failed(), 100)",
    ),
    *_bug(
        COUNTS,
        "failed forgets the attributes",
        (SQLITE, REDIS),
        "def failed(self):\n    return (replace(each, task=replace(each.task, attributes={})) for each in super().failed())",
    ),
    *_bug(
        COUNTS,
        "failed gives another event",
        (SQLITE,),
        "def failed(self):\n    return (replace(each, task=replace(each.task, payload=b'{}')) for each in super().failed())",
    ),
    *_bug(
        COUNTS,
        "failed gives no event",
        (SQLITE, REDIS, DYNAMODB),
        "def failed(self):\n    return (replace(each, task=replace(each.task, payload=b'')) for each in super().failed())",
    ),
    *_bug(
        COUNTS,
        "has_failed looks at handler errors alone",
        (SQLITE, REDIS),
        "def has_failed(self):\n    return any(each.outcome.failure is FailureKind.HANDLER_ERROR for each in self.failed())",
    ),
    *_bug(
        COUNTS,
        "has_failed remembers what was replaced",
        (SQLITE,),
        """
        _ever = False
        def put(self, results):
            type(self)._ever |= any(result.outcome.failure is not None for result in results)
            super().put(results)
        def has_failed(self):
            return self._ever
    """,
    ),
    # --- errors ---
    *_bug(
        ERRORS,
        "put swallows Unavailable",
        (REDIS, S3),
        "def put(self, results):\n    try:\n        super().put(results)\n    except Unavailable:\n        pass",
    ),
    *_bug(
        ERRORS,
        "put gives up where it is Unavailable",
        (REDIS,),
        "def put(self, results):\n    try:\n        super().put(results)\n    except Unavailable as error:\n        raise Rejected(str(error))",
    ),
    *_bug(
        ERRORS,
        "put tries five times by itself",
        (REDIS,),
        """
        def put(self, results):
            for left in reversed(range(5)):
                try:
                    return super().put(results)
                except Unavailable:
                    if not left:
                        raise
                    time.sleep(3)
    """,
    ),
    *_bug(
        ERRORS,
        "stored says none where it is Unavailable",
        (REDIS, DYNAMODB),
        "def stored(self, tasks):\n    try:\n        return super().stored(tasks)\n    except Unavailable:\n        return ()",
    ),
    *_bug(
        ERRORS,
        "get finds nothing where it is Unavailable",
        (REDIS, S3),
        "def get(self, task_ids):\n    try:\n        return super().get(task_ids)\n    except Unavailable:\n        return {}",
    ),
    *_bug(
        ERRORS,
        "a result too large takes its batch along",
        (REDIS,),
        "def put(self, results):\n    if any(len(each.outcome.payload) > self.config.max_bytes for each in results):\n        raise Rejected('too large', [each.task.id for each in results])\n    super().put(results)",
    ),
    *_bug(
        ERRORS,
        "a result too large is cut",
        (REDIS,),
        "def put(self, results):\n    super().put([_outcome(each, payload=each.outcome.payload[: self.config.max_bytes]) for each in results])",
    ),
    *_bug(
        ERRORS,
        "a missing folder is made",
        (SQLITE, JSONL),
        "def open(self):\n    from pathlib import Path\n    Path(self.config.path).parent.mkdir(exist_ok=True, parents=True)\n    super().open()",
    ),
    *_bug(
        ERRORS,
        "close leaves a file",
        (SQLITE, DYNAMODB),
        "def put(self, results):\n    import os\n    os.open('/dev/null', 0)\n    super().put(results)",
    ),
)
