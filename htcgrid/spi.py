"""The plugin interface, whole: the values that cross it, its errors, and three abstract classes.

This file is the specification. A compute plane subclasses `Invoker`, a place that tasks come from
subclasses `TaskSource`, a place that results go to subclasses `ResultSink`. Five methods are abstract;
everything else has a default. `htcgrid verify NAME` runs the conformance kit over an installed plugin.

Rules for all three:

- **Ordinary blocking calls.** The agent owns every thread. It may call any method from several threads
  at once, except `open` and `close`, which it calls once each, first and last.
- **One attempt.** A method tries once. It never retries, backs off or sleeps: the agent does, with
  jitter, in one place for all plugins. Switch off the retries of an SDK that has its own.
- **Two errors.** `Unavailable` says "not now, try again"; `Rejected` says "never". Anything else is a
  bug in the plugin and is reported with its traceback.
- **Payloads are bytes.** They hold one JSON document. They are passed on as they are, never parsed.
- **Limits are attributes.** `max_batch`, `max_concurrency`, `lease_seconds`: the agent keeps to them.
- **Secrets stay out** of messages, results and `repr`. A key of a `Config` that holds one is a pydantic
  `SecretStr`: nothing prints it, and `htcgrid deploy` refuses to send it with the config.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Protocol, Self, TypeVar, get_args, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationInfo, field_validator

_Value = TypeVar("_Value")

SPI_VERSION = 1
"""What a plugin states in its `spi` attribute. It rises when a plugin must change to go on working."""


# --- Errors ------------------------------------------------------------------------------------------
#
#   HtcgridError
#   ├── Unavailable    not now: throttled, unreachable, starting, out of capacity
#   └── Rejected       never: no such queue, no permission, too large, wrong address


class HtcgridError(Exception):
    """Every error that htcgrid raises on purpose. Its text says what, where, and what to do."""


class Unavailable(HtcgridError):
    """Not now; the same call may succeed later. Not counted as an attempt of the task.

    `retry_after` is the wait in seconds that the service asked for, if it did. `begun` names the tasks
    of the batch that may have run all the same, such as those whose answer was lost with a connection:
    their attempt counts.
    """

    def __init__(self, message: str, retry_after: float | None = None, begun: Collection[str] = ()) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.begun = frozenset(begun)


class Rejected(HtcgridError):
    """Never; the same call cannot succeed.

    Where a part of a batch is at fault, `task_ids` names that part, and the rest of the batch is done:
    a sink that raises `Rejected` for one result that is too large has stored the others.
    """

    def __init__(self, message: str, task_ids: Collection[str] = ()) -> None:
        super().__init__(message)
        self.task_ids = frozenset(task_ids)


# --- Values ------------------------------------------------------------------------------------------


class FailureKind(StrEnum):
    """What kind of failure ended an invocation. The agent's retries are set kind by kind."""

    HANDLER_ERROR = "handler_error"
    """The handler raised, or returned what JSON cannot hold."""
    INIT_ERROR = "init_error"
    """The module or the handler could not be loaded, or the runtime could not be started."""
    TIMEOUT = "timeout"
    """Still running at the function's timeout; it was stopped."""
    OUT_OF_MEMORY = "out_of_memory"
    """Past the function's memory; it was stopped."""
    EXIT = "exit"
    """The process ended, or was ended by a signal, with no answer."""
    PAYLOAD_TOO_LARGE = "payload_too_large"
    """The event or the answer is past the plane's limit."""
    CANCELLED = "cancelled"
    """The user cancelled the task."""
    INVALID_EVENT = "invalid_event"
    """The source found that this is no task: not JSON, no id, an id used before. It never ran."""


def _quick_init(cls: type[_Value]) -> type[_Value]:
    """Give a frozen dataclass an `__init__` of the same signature at half the cost, since four are made a task.

    The one that `dataclass` writes looks each slot up again by its name; this one has the slots at hand.
    """
    parameters, body, scope = ["self"], [], dict[str, Any](_missing=MISSING)
    for each in fields(cls):  # type: ignore[arg-type]
        name = value = each.name
        scope[f"_set_{name}"] = getattr(cls, name).__set__
        if each.default_factory is not MISSING:
            scope[f"_make_{name}"] = each.default_factory
            parameters.append(f"{name}=_missing")
            value = f"_make_{name}() if {name} is _missing else {name}"
        elif each.default is not MISSING:
            scope[f"_default_{name}"] = each.default
            parameters.append(f"{name}=_default_{name}")
        else:
            parameters.append(name)
        body.append(f"    _set_{name}(self, {value})\n")
    exec(f"def __init__({', '.join(parameters)}):\n{''.join(body)}", scope)  # noqa: S102 - as `dataclass` does
    init = scope["__init__"]
    init.__annotations__, init.__module__ = cls.__init__.__annotations__, cls.__module__
    init.__qualname__ = f"{cls.__qualname__}.__init__"
    cls.__init__ = init  # type: ignore[method-assign]
    return cls


@_quick_init
@dataclass(frozen=True, slots=True)
class Task:
    """One call to be made.

    `payload` is the event, one JSON document. `attributes` are text about the task, shown to the handler
    in `context.client_context.custom`; `session_id`, `priority` and `generation` are the names that htcgrid itself uses.
    """

    id: str
    payload: bytes
    attributes: Mapping[str, str] = field(default_factory=dict)


@_quick_init
@dataclass(frozen=True, slots=True)
class Lease:
    """A task lent by a source for a while: to be acked, given back, extended, or lost.

    `attempt` counts how often the task was handed out, this time included: 1 at first. `receipt` is the
    source's own mark of this very loan. `invalid` says why this is not to run: the source could make no
    task of what it found, or it was cancelled. Such a lease is never invoked; a failure of the kind
    `failure` is stored, and it is acked.
    """

    task: Task
    attempt: int = 1
    receipt: str = ""
    invalid: str = ""
    failure: FailureKind = FailureKind.INVALID_EVENT


@_quick_init
@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one invocation.

    `payload` is the handler's answer as it came, or the Lambda error document where `failure` is set.
    `started` is in Unix seconds; `duration_ms` is the handler's own time. `init_ms` is set on the first
    invocation of an execution environment. `max_memory_mb` is the most that environment has used.
    `log_tail` is the end of what the handler printed, 4 KB at most, without START, END and REPORT.
    """

    task_id: str
    payload: bytes
    failure: FailureKind | None = None
    started: float = 0.0
    duration_ms: float = 0.0
    billed_ms: int = 0
    max_memory_mb: int = 0
    log_tail: bytes = b""
    init_ms: float | None = None
    environment: str = ""


@dataclass(frozen=True, slots=True)
class Unstarted:
    """The plane did not begin this task and will not: it goes to another environment, uncounted."""

    task_id: str


@_quick_init
@dataclass(frozen=True, slots=True)
class Result:
    """A final outcome with its task: what a sink stores."""

    task: Task
    outcome: Outcome
    attempt: int = 1


class Keys(BaseModel):
    """A table of the config file: unknown keys, and values that nothing can work with, are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _may_be_looked_at(cls, value: Any, info: ValidationInfo) -> Any:
        kind = cls.model_fields[info.field_name or ""].annotation
        kinds = {kind, *get_args(kind)}
        if isinstance(value, bool) and kinds & {int, float} and bool not in kinds:
            raise ValueError("this must be a number")
        if Path in kinds and isinstance(value, str | Path):
            longest = max(map(len, map(os.fsencode, Path(value).parts)), default=0)
            if longest > 255 or len(os.fsencode(value)) > 4000:
                raise ValueError("it is longer than a path may be: 255 bytes a name, 4000 in all")
        return value

    @field_validator("*")
    @classmethod
    def _is_usable(cls, value: Any) -> Any:
        for text in _texts(value):
            if "\0" in text:
                raise ValueError("it holds a NUL character, which no file, variable or program can take")
            if len(text) > MAX_TEXT:
                raise ValueError(f"it is {len(text)} characters long; {MAX_TEXT} are the most")
        return value


MAX_TEXT = 32_768
"""Characters that one text in the config may have."""


def _texts(value: Any) -> Iterator[str]:
    """Every text in a value of the config."""
    if isinstance(value, str | Path):
        yield str(value)
    elif isinstance(value, SecretStr):
        yield value.get_secret_value()
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _texts(key)
            yield from _texts(inner)
    elif isinstance(value, list | tuple | set | frozenset):
        for inner in value:
            yield from _texts(inner)


class Function(Keys):
    """A handler with its code, runtime, limits and environment: `[function]` of the config file."""

    handler: str = Field(
        "", max_length=1000, description="module.function, as on AWS Lambda", examples=["pricing.handler"]
    )
    name: str = Field("", max_length=140, description="its name on every plane; from the handler where empty")
    code: Path = Field(Path(), description="the folder that holds the handler's module")
    runtime: str = Field("", description='"python3.11", "nodejs20.x", "provided", ...; this Python if empty')
    command: tuple[str, ...] = Field((), description="a program that speaks the Lambda Runtime API")
    timeout: float = Field(30.0, gt=0, le=2_592_000, description="seconds an invocation may take")
    memory: int = Field(512, ge=32, le=16_777_216, description="MiB an execution environment may use")
    ephemeral_storage: int = Field(512, gt=0, le=16_777_216, description="MiB of /tmp, where the plane can limit it")
    environment: Mapping[str, str] = Field(default_factory=dict, description="the handler's environment", repr=False)
    architecture: str = Field("", description='"x86_64" or "arm64"; the plane\'s own where empty')

    @field_validator("environment")
    @classmethod
    def _no_reserved_names(cls, environment: Mapping[str, str]) -> Mapping[str, str]:
        reserved = sorted(name for name in environment if name in RESERVED_ENVIRONMENT)
        if reserved:
            message = f"{', '.join(reserved)}: reserved by Lambda, which sets it itself; choose another name"
            raise ValueError(message)
        return environment

    @field_validator("environment")
    @classmethod
    def _proper_names(cls, environment: Mapping[str, str]) -> Mapping[str, str]:
        if any(not name or "=" in name for name in environment):
            raise ValueError('the name of a variable must not be empty, nor hold "="')
        return environment

    @field_validator("environment", "command")
    @classmethod
    def _can_be_passed(cls, value: Any) -> Any:
        size = sum(len(text.encode()) for text in _texts(value))
        if size > MAX_TEXT:
            raise ValueError(f"it has {size} bytes in all; {MAX_TEXT} are the most (of variables, 4096 on AWS Lambda)")
        return value

    @property
    def function_name(self) -> str:
        """The name given, else the handler's module: `pricing` of `pricing.handler`."""
        return self.name or self.handler.rpartition(".")[0].replace("/", ".").rpartition(".")[2] or "function"


RESERVED_ENVIRONMENT = frozenset(
    [
        "_HANDLER",
        "_X_AMZN_TRACE_ID",
        "AWS_DEFAULT_REGION",
        "AWS_REGION",
        "AWS_EXECUTION_ENV",
        "AWS_LAMBDA_FUNCTION_NAME",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
        "AWS_LAMBDA_FUNCTION_VERSION",
        "AWS_LAMBDA_INITIALIZATION_TYPE",
        "AWS_LAMBDA_LOG_GROUP_NAME",
        "AWS_LAMBDA_LOG_STREAM_NAME",
        "AWS_ACCESS_KEY",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_LAMBDA_RUNTIME_API",
        "LAMBDA_TASK_ROOT",
        "LAMBDA_RUNTIME_DIR",
    ]
)
"""Names that a user may not set, from AWS's page on Lambda environment variables."""


class Capability(StrEnum):
    """What an invoker says it does, so that the conformance kit knows what to ask of it."""

    TIMEOUT = "timeout"
    """A handler past its timeout is stopped and reported as `timeout`."""
    MEMORY = "memory"
    """A handler past its memory is stopped and reported as `out_of_memory`."""
    EXIT = "exit"
    """The end of the handler's process is seen at once and reported as `exit`."""
    ERRORS = "errors"
    """A failure is told from an answer that looks like an error document."""
    LOGS = "logs"
    """`Outcome.log_tail` holds what the handler printed."""
    CONTEXT = "context"
    """`client_context.custom` holds the task's id, session, attempt and attributes."""
    CANCEL = "cancel"
    """`cancel` stops a running handler."""
    METERING = "metering"
    """Durations and memory are measured."""


# --- The three abstract classes ----------------------------------------------------------------------


class Plugin(ABC):  # noqa: B024 - what is abstract differs by kind
    """What every plugin has: a `Config`, a life from `open` to `close`, and the function it serves.

    Constructing a plugin only keeps what it is given: no connection, no file, no thread. `open` does the
    rest and raises `Rejected` (wrong for good: exit code 2) or `Unavailable` (exit code 3). `close` is
    quiet when called twice or before `open`.
    """

    spi: ClassVar[int] = SPI_VERSION

    class Config(Keys):
        """The plugin's own keys in the config file. Subclass it; unknown keys are refused."""

    def __init__(self, config: Config, function: Function) -> None:
        self.config = config
        self.function = function

    def open(self) -> None:  # noqa: B027 - a plugin without connections needs none
        """Make ready: connect, check that what is named exists, start what serves."""

    def close(self) -> None:  # noqa: B027
        """Let go of everything `open` took. What was leased and not acked lapses or is given back."""

    def __enter__(self) -> Self:
        try:
            self.open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class TaskSource(Plugin):
    """A place that tasks come from: a file, a queue, a stream."""

    max_batch: int = 1
    """The most leases that one `receive`, `ack`, `nack` or `extend` takes. The agent cuts to it."""

    lease_seconds: float | None = None
    """How long a lease lasts without `extend`; None where it lasts as long as this process."""

    @abstractmethod
    def receive(self, max_tasks: int, wait: float) -> Sequence[Lease]:
        """Lend up to `max_tasks` tasks, `max_batch` at most.

        Returns as soon as it has any, and with none after about `wait` seconds. A task that is lent is
        not lent again until its lease lapses or is given back, and then with `attempt` one higher.
        """

    @abstractmethod
    def ack(self, leases: Sequence[Lease]) -> None:
        """Done for good: never handed out again. A late or second ack is quiet."""

    def nack(self, leases: Sequence[Lease], delay: float = 0.0) -> None:
        """Give back: handed out again after about `delay` seconds, counted as one more attempt.

        The default does nothing, which is right where leases lapse soon by themselves. A late or second
        nack is quiet, and so is one for a lease that was lost.
        """

    def extend(self, leases: Sequence[Lease], seconds: float) -> Collection[str]:
        """Keep these leases for `seconds` from now; say which tasks are ours no more.

        Returns the ids of tasks that were cancelled, or whose lease was lost to another receiver.
        The agent stops their invocations and stores nothing of them: the other receiver does, or whoever
        cancelled. The default, for sources whose leases never lapse: none.
        """
        return ()

    @property
    def exhausted(self) -> bool:
        """Whether nothing will come any more. A source that never ends says False, the default.

        A finite source says True when all it had is acked or lent out, and nothing that was given back
        waits to be handed out again.
        """
        return False


class Invoker(Plugin):
    """A compute plane: where handlers run."""

    max_batch: int = 1
    """The most tasks one `invoke` takes. Above 1 only where an environment can be fed ahead cheaply."""

    max_concurrency: int = 1
    """How many `invoke` calls can do work at the same time: the number of execution environments.
    Read after `open`. The agent runs that many threads."""

    capabilities: frozenset[Capability] = frozenset()

    @abstractmethod
    def invoke(self, batch: Sequence[Lease], timeout: float) -> Iterable[Outcome | Unstarted]:
        """Run the handler for each task, one after the other in one environment, and report each once.

        Outcomes come as they are ready, in any order. `timeout` is in seconds, for each task by itself.
        Failures of the handler are outcomes. A task that was not begun when another of its batch takes
        long, or ends the environment, is reported as `Unstarted` at once, so that another environment
        can have it.

        Raises `Unavailable` when the plane cannot be had; tasks already reported stay reported, the rest
        are tried again. `Rejected` stops the agent: this plane will never run these tasks.
        """

    def cancel(self, task_ids: Collection[str]) -> None:
        """Stop these tasks if they run here; each is reported as `cancelled`. Called from any thread.

        Ids that are not here are passed over quietly. The default does nothing: the handler runs on.
        """


class ResultSink(Plugin):
    """A place that results go to."""

    max_batch: int = 1
    """The most results that one `put` takes."""

    @abstractmethod
    def put(self, results: Sequence[Result]) -> None:
        """Store these results. They are durable when it returns: the tasks are acked right after.

        A result whose task id is there already leaves one result. `Rejected` with `task_ids` names those
        that can never be stored; the others are. After `Unavailable` the same results are put again.
        """

    def stored(self, tasks: Sequence[Task]) -> Collection[str]:
        """Which of these tasks have a result already: they are acked without running.

        Asked before tasks are run, so it must be cheap. The default, for sinks that cannot know: none.
        """
        return ()


# --- What a plugin may offer besides -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Depth:
    """How many tasks a queue holds: ready or delayed, lent out, set aside. None: not known."""

    waiting: int | None = None
    leased: int | None = None
    dead: int | None = None


@runtime_checkable
class Measurable(Protocol):
    """A source that can tell how much it holds: progress and `htcgrid status` show it."""

    def depth(self) -> Depth:
        """How many tasks are there now; an estimate where the service gives no better."""
        ...


@runtime_checkable
class TaskQueue(Measurable, Protocol):
    """A source that tasks can be put into: `htcgrid submit`, `cancel` and `status` use it."""

    def put(self, tasks: Sequence[Task]) -> None:
        """Accept these tasks, durably, all or none.

        A task that is there already, with the same event and attributes, stays as it is and is quietly accepted:
        so a submit that was cut off is completed by giving it again. An id that is there with another event or
        other attributes, or twice among these tasks, is `Rejected`. A queue that knows no ids takes them all.
        """
        ...

    def cancel(self, session_id: str | None = None, task_ids: Collection[str] = ()) -> Sequence[Task]:
        """Cancel a session, or these tasks: waiting ones never run, and `extend` reports running ones.

        Returns the tasks that were cancelled, now or by an earlier call that may not have come to its
        end; whoever calls stores a `cancelled` result for each. What an agent still makes of them is
        not stored, since their leases are lost.
        """
        ...


@runtime_checkable
class DeadLetters(Protocol):
    """A source that can set tasks aside. The agent calls this in place of `ack` for hopeless tasks."""

    def dead_letter(self, leases: Sequence[Lease], reason: str) -> None:
        """Set these tasks aside for good, with the reason; they are not handed out again."""
        ...


@runtime_checkable
class Sessions(Protocol):
    """A queue that knows of its sessions: `htcgrid results --wait` waits for one alone."""

    def is_pending(self, session_id: str) -> bool:
        """Whether a task of this session waits, is delayed or is lent out."""
        ...


@dataclass(frozen=True, slots=True)
class States:
    """How many tasks are in each state; a task is in one. None: not known."""

    waiting: int | None = None
    """Can be handed out now."""
    delayed: int | None = None
    """Given back, to be handed out later."""
    leased: int | None = None
    cancelled: int | None = None
    """Cancelled and not forgotten yet."""
    dead: int | None = None
    """Set aside."""


@dataclass(frozen=True, slots=True)
class Holder:
    """An agent on a queue: how many tasks it has on lease, and how long ago it was last heard of."""

    leased: int
    silent_seconds: float


@dataclass(frozen=True, slots=True)
class Survey:
    """A queue at one time. `sessions` are in the order of submission; `""` holds tasks without one.

    `oldest_seconds` is the age of the oldest task that waits or is delayed, None where there is none. `agents` are
    by name, None where the queue cannot tell. `note` says what it cannot tell, and where that is found.
    """

    states: States
    sessions: Mapping[str, States] = field(default_factory=dict)
    oldest_seconds: float | None = None
    agents: Mapping[str, Holder] | None = None
    note: str = ""


@runtime_checkable
class Surveyed(Protocol):
    """A source that can be looked over; without it, `htcgrid status` shows the depth."""

    def survey(self) -> Survey:
        """What is there now. It may read all of the queue, but none of the payloads."""
        ...


@runtime_checkable
class ResultStore(Protocol):
    """A sink that can be read: `htcgrid results` and `Grid.map` use it."""

    def get(self, task_ids: Sequence[str]) -> Mapping[str, Result]:
        """The results of those of these tasks that have one. `Result.task.payload` may be empty."""
        ...


@runtime_checkable
class ResultLog(ResultStore, Protocol):
    """A store that can be read in the order in which it was filled: `htcgrid results` follows it."""

    def scan(self, session_id: str | None = None, after: int = 0) -> Iterator[tuple[int, Result]]:
        """Results with their numbers, ascending, of a session or of all; only those above `after`.

        A few at a time in memory. A later call with the last number seen goes on and misses none.
        """
        ...


@dataclass(frozen=True, slots=True)
class Tally:
    """What a store holds at one time. None: not known. `note` is as in `Survey`.

    `failures` are by kind, and among `stored`. `per_second` is how many were stored lately, over a minute at most.
    """

    stored: int | None = None
    failures: Mapping[str, int] | None = None
    per_second: float | None = None
    note: str = ""


@runtime_checkable
class Tallied(Protocol):
    """A sink that can be counted: `htcgrid status` shows it."""

    def tally(self) -> Tally:
        """What is stored now."""
        ...


GENERATION = "generation"
"""The attribute of a task that `htcgrid redrive` runs again: "1" the first time, then "2", and so on."""


def generation_of(task: Task) -> int:
    """How often it was run again after a failure that was final; 0 for a task that never was."""
    text = task.attributes.get(GENERATION) if task.attributes else None
    # Others may put tasks with an attribute of that name, which is then not ours.
    return int(text) if text is not None and len(text) < 10 and text.isdecimal() else 0


@runtime_checkable
class FailureLog(Protocol):
    """A sink whose failures can be listed and replaced: `htcgrid failures` and `redrive` use it.

    `put` keeps its rule that the first result of a task stays, with one exception: a failure is replaced by a result
    of a later generation. So a success is never replaced, and what comes late of an earlier generation changes nothing.
    `stored` does not name a task whose result is a failure of an earlier generation than the task's own.
    """

    def failed(self) -> Iterator[Result]:
        """Every result that is a failure now, a few at a time in memory.

        `Result.task` has its attributes, generation included, and the event where it is kept with the failure.
        """
        ...

    def has_failed(self) -> bool:
        """Whether there is one: the exit code of a run says so."""
        ...


@runtime_checkable
class SharedReading(Protocol):
    """A sink that can be opened for reading alone, beside a run that writes into it."""

    def open_to_read(self) -> None:
        """In place of `open`, with the same errors. `put` is not called."""
        ...


@runtime_checkable
class Redrivable(Protocol):
    """A source into which failed tasks can be put again: `htcgrid redrive` uses it."""

    def redrive(self, tasks: Sequence[Task]) -> None:
        """Accept these tasks, durably. Each has a generation above that of its failed run.

        A task of that id and an earlier generation that is still there, or was set aside, is replaced. One of the same
        generation and content stays as it is, so that a redrive that was cut off is completed by giving it again.
        """
        ...


@dataclass(frozen=True, slots=True)
class DeadTask:
    """A task that was set aside: how often it was handed out, and why it is not any more."""

    task: Task
    attempt: int
    reason: str


@runtime_checkable
class DeadLog(Protocol):
    """A source whose tasks that were set aside can be listed: `htcgrid failures` shows them."""

    def dead(self) -> Iterator[DeadTask]:
        """The tasks that were set aside, a few at a time in memory."""
        ...


@runtime_checkable
class Deployable(Protocol):
    """A plane that can be set up to stand by itself: `htcgrid deploy` and its kin use it.

    Each yields lines of progress as it goes and returns when what it did can be relied on.
    """

    def deploy(self, *, dry_run: bool = False) -> Iterable[str]:
        """Create or update; with `dry_run` show what would change and change nothing."""
        ...

    def undeploy(self) -> Iterable[str]:
        """Remove all that `deploy` made, and nothing else."""
        ...

    def scale(self, size: int) -> Iterable[str]:
        """Have `size` workers."""
        ...

    def status(self) -> Mapping[str, str]:
        """What stands, as names and values to be shown."""
        ...


@runtime_checkable
class Standing(Protocol):
    """A `Deployable` whose workers take tasks by themselves, and so must know the whole config."""

    def adopt(self, settings: Mapping[str, Any]) -> None:
        """Told before anything else: the config as a document, only with what was given in it."""
        ...


@runtime_checkable
class Granted(Protocol):
    """A `Deployable` that says which rights its uses take: `htcgrid status --permissions` prints them."""

    def permissions(self) -> str:
        """The documents, such as a Role, with a comment on what each is for."""
        ...


@runtime_checkable
class ImageBuilder(Protocol):
    """A plane that can make a container image of the function: `htcgrid build` uses it."""

    def build(self, tag: str, *, wheels: Path | None = None, dry_run: bool = False) -> Iterable[str]:
        """Make the image, named `tag`, of the code folder; yields lines of progress.

        Python's requirements are installed from `wheels` alone where that folder is given. With
        `dry_run` only what would be done is yielded: the Dockerfile.
        """
        ...


# --- What any plugin may offer besides ---------------------------------------------------------------


@runtime_checkable
class Advising(Protocol):
    """A plugin that knows what goes wrong with settings like these: `htcgrid check` prints it."""

    def advise(self, attempts: int) -> Iterable[str]:
        """What does not fit the function, or an agent that tries a task `attempts` times; what to do.

        Called open, where the user asked for that, or not: then only what the config itself tells.
        """
        ...


@runtime_checkable
class Permitted(Protocol):
    """A plugin on AWS that says what each use of it needs: `htcgrid permissions` prints it."""

    def policies(self) -> Mapping[str, Mapping[str, Any]]:
        """The least IAM policy for each of `agent`, `submitter` and `reader` that it knows; no others.

        Called open or not: what only AWS can tell, such as account and region, is `*` before `open`.
        """
        ...


class Usage(Protocol):
    """What was asked of a service that sends bills."""

    @property
    def requests(self) -> Mapping[str, int]:
        """Requests by `service` or `service.Operation`."""
        ...

    @property
    def dollars(self) -> float | None:
        """Their list price; None where it is not known."""
        ...

    @property
    def basis(self) -> str:
        """Which price list: date and region."""
        ...


@runtime_checkable
class Metered(Protocol):
    """A plugin whose calls cost money: the summary of a run shows it."""

    def usage(self) -> Usage | Mapping[str, str]:
        """What was used since it was made; as names and values to be shown where it is no matter of requests."""
        ...
