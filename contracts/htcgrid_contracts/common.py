"""The rules for sources, sinks and invokers alike, and helpers for all contracts."""

import gc
import logging
import os
import re
import threading
import time
import uuid
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import ClassVar, NoReturn, TypeVar

import pytest
from htcgrid.spi import SPI_VERSION, HtcgridError, Invoker, Observer, Plugin, Rejected, Unavailable, Usage
from pydantic import SecretStr, ValidationError

from htcgrid_contracts import sleeps

P = TypeVar("P", bound=Plugin)
T = TypeVar("T")

_SECRET_NAME = re.compile(
    r"(password|passwd|pwd|passphrase|secret|token|credential|api_?key|access_?key|private_?key)s?$", re.IGNORECASE
)
"""A name that ends so is of a secret. `token_file`, `secret_name` or `access_key_id` say where one is, and may be shown."""
_IN_ADDRESS = re.compile(r"(://[^/@\s:]*):([^/@\s]+)@")
_IN_PARAMETERS = re.compile(r"\b(?:password|passwd|pwd)=[\"']?([^\s&;\"']+)", re.IGNORECASE)
"""The password of an address, and that of a connection's parameters."""
_USUAL = frozenset(
    (
        "admin",
        "example",
        "guest",
        "pass",
        "password",
        "postgres",
        "rabbitmq",
        "redis",
        "root",
        "secret",
        "test",
        "token",
        "user",
    )
)
"""Passwords of test servers that are words as well: an error may well have one, and tells nothing."""

_WITHOUT_USER = re.compile(r"([a-z][a-z0-9+.-]*)://(?=[^@\s]+$)")
"""The beginning of an address in which there is no user."""
_NO_LOGIN = re.compile(r"abfs|az|dns|file|grpc|gs|hdfs|http\+unix|inproc|ipc|npipe|s3|sqlite|tcp|tls|udp|unix")
"""Schemes whose addresses have no user and no password."""
_PASSWORD = "contract-5d41-hidden"  # noqa: S105

WEST, EAST = "<-12>+12", "<+14>-14"
"""Time zones in which it is never the same hour: 26 hours are between them."""


class PluginContract:
    """The rules for every plugin. Subclass the contract of your kind of plugin, not this class."""

    wait_factor: float = 1.0
    """Every wait is multiplied by it: 1 for a plugin on this machine, 5 for a service far away."""

    known_gaps: ClassVar[Mapping[str, str]] = {}
    """Rules that this plugin is known to break, by test name, each with the reason. They are still
    asked and must fail: a rule that holds is an error, so that its entry is removed."""

    secrets: tuple[str, ...] = ()
    """Texts of the fixture's config that must not be shown, such as its password."""

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        unknown = [name for name in cls.known_gaps if not hasattr(cls, name.partition("[")[0])]
        if unknown:
            raise TypeError(f"{cls.__name__}.known_gaps names no rule of this contract: {', '.join(unknown)}")

    # --- what a subclass may override ---

    @pytest.fixture
    def missing(self) -> Plugin:
        """A plugin, not opened, whose config names a place that is not there."""
        not_asked("override the fixture `missing`: a plugin, not opened, whose config names what does not exist")

    def take_away(self, plugin: Plugin) -> None:
        """Make the service of the opened plugin unreachable: stop the server, or cut the network."""
        not_asked("override `take_away(plugin)`: stop the server that the opened plugin talks to")

    def bring_back(self, plugin: Plugin) -> None:
        """Make it reachable again after `take_away`."""
        not_asked("override `bring_back(plugin)`: start again what `take_away` has stopped")

    def throttle(self, plugin: Plugin) -> None:
        """Make the service of the opened plugin refuse the next call because there are too many."""
        not_asked("override `throttle(plugin)`: have the service refuse the next call, since there are too many now")

    def end_throttle(self, plugin: Plugin) -> None:
        """Make it accept calls again, where `throttle` has made it refuse more than one."""

    def can(self, name: str) -> bool:
        """Whether the subclass overrides this method: `take_away`, `bring_back`, `throttle` or `resize`."""
        return not getattr(type(self), name).__module__.startswith(f"{__package__}.")

    def needs(self, name: str) -> None:
        """Leave the rule out where the subclass does not override this method."""
        if not self.can(name):
            getattr(self, name)(None)  # which says what to override

    @contextmanager
    def away(self, plugin: Plugin) -> Iterator[None]:
        """The service of the opened plugin is away; it is brought back afterwards, since the next rule may need it."""
        self.take_away(plugin)
        try:
            yield
        finally:
            self.restore(plugin)

    def restore(self, plugin: Plugin) -> None:
        """Bring back what was taken away, where the subclass can."""
        if self.can("bring_back"):
            self.bring_back(plugin)

    @contextmanager
    def throttled(self, plugin: Plugin) -> Iterator[None]:
        """The service of the opened plugin refuses calls."""
        self.throttle(plugin)
        try:
            yield
        finally:
            self.end_throttle(plugin)

    def knows_a_missing_place(self) -> bool:
        """Whether there is a fixture `missing`."""
        return type(self).missing is not PluginContract.missing

    def use(self, plugin: Plugin) -> None:
        """Make one call that uses what `open` has made ready; each contract has its own."""

    def use_wrongly(self, plugin: Plugin) -> None:
        """Make one call that the plugin rejects, where there is one; each contract has its own."""

    away_seconds: float = 5.0
    """How many seconds a call may take to find out that its service cannot be reached."""

    def again(self, plugin: P) -> P:
        """A second plugin with the same config, not opened: that of another agent on another machine."""
        return type(plugin)(plugin.config, plugin.function)

    def comes_back(self, call: Callable[[], None], seconds: float, what: str) -> None:
        """Checks that the call works again within this time, and raises only `Unavailable` until then."""
        deadline = time.monotonic() + seconds * self.wait_factor
        while True:
            try:
                return call()
            except Unavailable as error:
                assert time.monotonic() < deadline, f"the {what} came back, and it still says: {error}"
                time.sleep(0.1)

    def opens_or_says_why(self, plugin: Plugin) -> None:
        """Checks that `open` while the service is away raises Unavailable, if anything, without a secret."""
        other = self.again(plugin)
        self.says_unavailable(plugin, "open", other.open)
        other.close()

    def says_unavailable(
        self, plugin: Plugin, name: str, call: Callable[[], object], when: str = "while the service is away"
    ) -> None:
        """Checks that a call raises Unavailable, if anything, without a secret; `when` says what is wrong with the service."""
        try:
            call()
        except Unavailable as error:
            self.keeps_secrets(plugin, f"the error of `{name}` {when}", str(error))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the verdict
            raise AssertionError(f"`{name}` {when} raised {type(error).__name__}: {error}; raise Unavailable") from None

    # --- rules ---

    def test_it_is_written_for_this_version_of_the_interface(self, plugin: Plugin) -> None:
        """`spi` of the plugin must equal htcgrid's SPI_VERSION. htcgrid refuses to load a plugin of another version.
        Read: spi.SPI_VERSION."""
        assert plugin.spi == SPI_VERSION, f"spi = {plugin.spi}, and this htcgrid has {SPI_VERSION}"

    def test_an_unknown_key_of_its_config_is_refused(self, plugin: Plugin) -> None:
        """Config must refuse a key that it does not know. Otherwise a misspelt setting is ignored and nobody notices.
        Read: spi.Plugin.Config."""
        try:
            config_with(plugin, "no_such_key", 1)
        except ValidationError as error:
            assert "no_such_key" in str(error), f"the error does not name the key: {error}"
        else:
            pytest.fail(
                "Config accepted the key `no_such_key`: make Config a subclass of Plugin.Config, which refuses it"
            )

    def test_a_negative_number_of_seconds_is_refused(self, plugin: Plugin) -> None:
        """A key of the config that says how long must refuse a negative number. Otherwise a call fails by it later, and the
        service is blamed. Read: spi.Plugin.Config."""
        for key in type(plugin.config).model_fields:
            usual = getattr(plugin.config, key)
            is_below = isinstance(usual, (int, float)) and usual < 0  # -1 may stand for "no limit"
            if key.endswith(("seconds", "timeout")) and "offset" not in key and not is_below:
                try:
                    config_with(plugin, key, -1)
                except ValidationError:
                    continue
                pytest.fail(f"Config accepted {key} = -1: give the field a bound, such as Field(3.0, gt=0)")

    def test_constructing_opens_nothing(self, plugin: Plugin) -> None:
        """`__init__` must not open files or connections or start threads; `open` does that. `htcgrid check` makes
        plugins without opening them. Read: spi.Plugin."""
        before = HeldResources.now()
        made = self.again(plugin)
        held = HeldResources.now().beyond(before)
        del made
        assert not held, f"the constructor took {held}: do that in `open`"

    def test_close_is_quiet_when_called_twice(self, plugin: Plugin) -> None:
        """A second `close` must do nothing and raise nothing. When an agent ends, more than one part of it may call
        `close`. Read: spi.Plugin.close."""
        other = self.again(plugin)
        other.open()
        other.close()
        other.close()

    def test_close_is_quiet_before_open(self, plugin: Plugin) -> None:
        """`close` must work before `open`, or after an `open` that failed. `with plugin:` calls it in that case too.
        Read: spi.Plugin.close."""
        self.again(plugin).close()

    def test_close_releases_all_that_open_took(self, plugin: Plugin, caplog: pytest.LogCaptureFixture) -> None:
        """`close` must release every thread, file and process that `open` acquired, and warn of nothing. What is left adds up in
        `serve`, and can keep the program from ending. Read: spi.Plugin.close."""
        kept: list[Plugin] = []  # what ends with the object, and not by `close`, is held
        complaints: list[str] = []

        def use() -> None:
            with self.again(plugin) as used:
                kept.append(used)
                self.use(used)
                with suppress(Rejected):
                    self.use_wrongly(used)
                # The agent calls from several threads, and calls at the same time may have a connection each. A plane has one
                # for each slot; an observer is called by one thread at a time.
                size = min(getattr(used, "max_concurrency", 1 if isinstance(used, Observer) else 2), 2)
                together = threading.Barrier(size)

                def use_at_once() -> None:
                    together.wait(30 * self.wait_factor)
                    self.use(used)

                in_threads([use_at_once] * size, 60 * self.wait_factor)
                before_close = len(caplog.records)
            complaints.extend(each.getMessage() for each in caplog.records[before_close:] if _is_warning(each))

        use()  # what an SDK loads once and keeps is no leak
        before = HeldResources.now()
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always", ResourceWarning)
            for _ in range(3):
                use()
            self.nothing_is_held(before, "open, calls from two threads, and close, three times over,")
        left = [str(each.message) for each in warned if issubclass(each.category, ResourceWarning)]
        assert not left, f"`close` left to Python's garbage collector what it should have closed itself: {left[0]}"
        if isinstance(plugin, Observer):
            return  # it has no other way to say that its service is away, as in a rule that is asked without one
        assert not complaints, f"nothing went wrong, and `close` logs a warning: {complaints[0]}"

    def test_a_place_that_is_not_there_is_an_error_beside_one_that_is(self, missing: Plugin, plugin: Plugin) -> None:
        """A plugin whose place is not there must not open because another plugin, with another config, is open in the same
        process: two plugins share nothing, a connection least of all. Read: spi.Plugin.open."""
        there = self.again(plugin)
        try:
            there.open()
        except HtcgridError:
            not_asked("what makes the place of `missing` go missing, such as a variable, does so for every plugin")
        with closing(there):
            self.use(there)
            try:
                with type(missing)(missing.config, missing.function) as opened:
                    self.use(opened)
            except HtcgridError:
                return
        pytest.fail("what the config names is not there, and it works while another plugin of this kind is open")

    def test_a_place_that_is_not_there_is_a_clear_error(self, missing: Plugin) -> None:
        """Where the config names something that does not exist, `open` must raise Rejected and say what to do. The
        agent then ends at once with exit code 2; after Unavailable it would wait for ever.
        Read: spi.Plugin.open, spi.Rejected."""
        try:
            with missing:
                pytest.fail("`open` went through though what the config names is not there")
        except Rejected as error:
            assert len(str(error)) >= 20, f"say what is missing, where, and what to do; this says only {error}"
        except Unavailable as error:
            pytest.fail(
                f"`open` raised Unavailable ({error}): the agent would wait for ever; raise Rejected. If `missing` names what "
                "refuses connections, as a service that is starting does, Unavailable is right: name another place"
            )

    def test_its_errors_and_repr_keep_secrets(
        self, plugin: Plugin, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Errors, logs and `repr` must not contain a secret of the config, nor may a key take an address with a password and
        show it. More people read logs than may know the password. Read: spi, rules for all three."""
        shown = f"{plugin!r} {plugin.config!r} {plugin.config}"
        leaked = shown_secrets(plugin, self.secrets, shown)
        assert not leaked, "a secret of the config is in its repr: declare that field as pydantic.SecretStr"
        shows = [key for key, value in plugin.config if _shows_a_password(plugin, key, str(value))]
        assert not shows, (
            f"`{shows[0]}` takes an address with a user and a password, and the config's repr shows it, as errors may: refuse "
            f"such an address, or declare the field as pydantic.SecretStr"
        )
        if not self.secrets and not secrets_of(plugin):
            return
        caplog.set_level(logging.INFO)
        with self.again(plugin) as opened:
            self.use(opened)
        self.keeps_secrets(plugin, "what it logs", caplog.text)
        if self.knows_a_missing_place():
            missing = request.getfixturevalue("missing")
            with pytest.raises(HtcgridError) as caught, missing:
                pass
            self.keeps_secrets(plugin, "the error of `open`", str(caught.value))
        for key, secret in plugin.config:
            if isinstance(secret, SecretStr) and (text := secret.get_secret_value()):
                # A secret that was read from a file often ends with a line break; an address is often misspelt.
                wrong, where = (
                    (f"x{text}", "has another scheme") if "://" in text else (f"{text}\n", "ends with a line break")
                )
                try:
                    with type(plugin)(
                        plugin.config.model_copy(update={key: SecretStr(wrong)}), plugin.function
                    ) as opened:
                        self.use(opened)
                except Exception as error:  # noqa: BLE001 - whatever it is, it must not show the secret
                    self.keeps_secrets(plugin, f"the error for {key} where it {where}", str(error))

    def test_throttling_is_unavailable(self, plugin: Plugin) -> None:
        """When the service refuses a call because there are too many, the plugin must raise Unavailable. The agent then
        waits and tries again. Read: spi.Unavailable."""
        self.needs("throttle")
        with self.again(plugin) as opened:
            self.use(opened)
            refused = "a call that the service refused, since there were too many,"
            with self.throttled(opened), self.unavailable(refused, opened):
                self.use(opened)

    def test_it_knows_its_agent_by_name(self, plugin: Plugin) -> None:
        """`agent` must be a name that is not empty, and `open` must not change one that was set before it.
        Read: spi.Plugin.agent."""
        made = self.again(plugin)
        agent: object = getattr(made, "agent", None)
        assert agent, "there is no attribute `agent`: __init__ must call super().__init__(config, function)"
        assert isinstance(agent, str)
        if isinstance(made, Invoker):
            return  # to open it may mean to deploy, and it shows the name to nobody
        made.agent = "contract-agent-1"
        with made:
            assert made.agent == "contract-agent-1", f"`agent` was set before `open`, and is {made.agent!r} after it"

    def test_what_it_says_of_itself_can_be_asked_at_any_time(self, plugin: Plugin) -> None:
        """`advise`, `permissions` and `usage` must work before `open`: the commands `check` and `permissions` open
        nothing. Read: spi.Plugin.advise, spi.Plugin.permissions, spi.Plugin.usage."""
        made = self.again(plugin)
        advice = list(made.advise(3))
        assert all(advice), f"`advise` yields an empty text: {advice}"
        with suppress(HtcgridError):  # a service that must be asked may be unavailable
            for use, rights in made.permissions().items():
                is_policy = isinstance(rights, Mapping) and "Statement" in rights
                assert is_policy or isinstance(rights, str), (
                    f"`permissions` has for {use!r} neither an IAM policy nor a text: {rights!r}"
                )
        told = "\n".join(advice)
        usage: object = made.usage()
        assert usage is None or isinstance(usage, Usage), f"`usage` returned {usage!r}: return a Usage, or None"
        self.keeps_secrets(plugin, "what `advise` and `usage` say", f"{told} {usage!r}")

    # --- words for the contracts ---

    def nothing_is_held(self, before: "HeldResources", after: str) -> None:
        held = HeldResources.now().beyond(before)
        deadline = time.monotonic() + 5 * self.wait_factor
        while held and time.monotonic() < deadline:
            time.sleep(0.02)
            held = HeldResources.now().beyond(before)
        assert not held, f"after {after} there is still {held}"

    def keeps_secrets(self, plugin: Plugin, what: str, text: str) -> None:
        """Checks that the text contains no secret of the plugin, and shows no secret in the error."""
        is_told = bool(shown_secrets(plugin, self.secrets, text))
        assert not is_told, f"a secret is in {what}"

    @contextmanager
    def one_try(self, what: str, plugin: Plugin) -> Iterator[None]:
        """As `unavailable`, of a call that has nothing to wait for: checks too that it does not sleep and try again."""
        with sleeps.noted() as slept, self.unavailable(what, plugin):
            yield
        assert not slept, (
            f"{what} slept {len(slept)} times, {sum(slept):.2f} s in all, before it said Unavailable: one attempt, no retries"
        )

    @contextmanager
    def unavailable(self, what: str, plugin: Plugin | None = None) -> Iterator[None]:
        """Checks that the block soon raises `Unavailable`, with no secret of the plugin in the error."""
        began = time.monotonic()
        try:
            yield
        except Unavailable as error:
            took = time.monotonic() - began
            most = self.away_seconds * self.wait_factor
            assert took < most, (
                f"{what} took {took:.0f} s to say Unavailable, and {most:g} s are allowed: one attempt, no retries"
            )
            after: object = error.retry_after
            assert after is None or (isinstance(after, (int, float)) and 0 <= after <= 600), (
                f"retry_after of {what} is {after!r}: a number of seconds"
            )
            if plugin is not None:
                self.keeps_secrets(plugin, f"the error of {what}", str(error))
        except Rejected as error:
            pytest.fail(f"{what} raised Rejected ({error}), which ends the agent: the place may come back")
        else:
            pytest.fail(f"{what} raised nothing though its place was taken away: raise Unavailable")


def not_asked(reason: str) -> NoReturn:
    """Leave a rule out, and say what the author must do to have it asked."""
    pytest.skip(f"not asked: {reason}")


def unique_id() -> str:
    """A task id that no other run has: a queue or a store may be used by many runs."""
    return f"contract-{uuid.uuid4().hex[:16]}"


def eventually(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait until the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.01)


def patiently(call: Callable[[], T]) -> T:
    """Make the call as the agent does: again while it raises `Unavailable`. Other errors are told in words."""
    for left in reversed(range(20)):
        try:
            return call()
        except Unavailable:
            if not left:
                raise
            time.sleep(0.05)
        except Exception as error:
            raise AssertionError(f"a call beside others raised {type(error).__name__}: {error}") from error
    raise AssertionError


def config_with(plugin: Plugin, key: str, value: object) -> Plugin.Config:
    """The plugin's config with another value of this key, validated: raises `ValidationError` where the config refuses it."""
    return type(plugin.config).model_validate(plugin.config.model_dump(by_alias=True) | {key: value})


def _shows_a_password(plugin: Plugin, key: str, value: str) -> bool:
    """Whether this key of the config takes its address with a password in it as well, and shows it."""
    found = _WITHOUT_USER.match(value)
    if found is None or _NO_LOGIN.fullmatch(found[1]):
        return False
    address = f"{found[0]}user:{_PASSWORD}@{value[found.end() :]}"
    try:
        config = config_with(plugin, key, address)
    except ValidationError:
        return False
    return _PASSWORD in f"{config!r} {config}"


def in_threads(calls: Sequence[Callable[[], T]], seconds: float) -> list[T]:
    """Make the calls at the same time, each in a thread. Returns what they return; raises the first error."""
    results: dict[int, T] = {}
    errors: list[BaseException] = []

    def make(number: int, call: Callable[[], T]) -> None:
        try:
            results[number] = call()
        except BaseException as error:  # noqa: BLE001 - handed to the test's own thread
            errors.append(error)

    threads = [threading.Thread(target=make, args=(number, call), daemon=True) for number, call in enumerate(calls)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    if errors:
        raise errors[0]
    running = sum(thread.is_alive() for thread in threads)
    assert not running, f"{running} of {len(threads)} calls side by side had not returned after {seconds:.0f} s"
    return [results[number] for number in range(len(calls))]


@contextmanager
def in_time_zone(name: str) -> Iterator[None]:
    """Sets the time zone, as on a machine in that place."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = name
    time.tzset()
    try:
        yield
    finally:
        if before is None:
            del os.environ["TZ"]
        else:
            os.environ["TZ"] = before
        time.tzset()


def secrets_of(plugin: Plugin) -> set[str]:
    """Values of config fields that are secrets by their types or their names; of addresses and parameters of connections,
    those with a password, and the password by itself."""
    return {secret for _, secrets in _texts(plugin) for secret in secrets}


def shown_secrets(plugin: Plugin, more: Collection[str], text: str) -> Sequence[str]:
    """The secrets of the plugin, and of `more`, that the text shows. A password that is also a word which may be shown,
    such as the name of its user, is no sign of a leak."""
    public = [type(plugin).__module__.replace(".", " "), *(each for each, _ in _texts(plugin))]
    words = {word.lower() for each in public for word in re.findall(r"[\w-]+", each)}
    return [
        secret
        for secret in {*more, *secrets_of(plugin)}
        if secret.lower() not in _USUAL | words and re.search(rf"(?<!\w){re.escape(secret)}(?!\w)", text)
    ]


def _texts(plugin: Plugin) -> Iterator[tuple[str, set[str]]]:
    """The texts of the config: of each what may be shown, and the secrets in it."""
    for name, value in plugin.config:
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        if not isinstance(text, str):
            continue
        passwords = {each for _, each in _IN_ADDRESS.findall(text)} | set(_IN_PARAMETERS.findall(text))
        is_secret = isinstance(value, SecretStr) and ("://" not in text or "@" in text)
        if passwords:
            shown = _IN_PARAMETERS.sub("", _IN_ADDRESS.sub(r"\1@", text))
            yield shown, {each for each in (text, *passwords) if len(each) >= 4}
        elif is_secret or _SECRET_NAME.search(name):
            yield "", {text} if len(text) >= 4 else set()
        else:
            yield text, set()


def descendants(pid: int) -> set[int]:
    """The processes that this one has started, and all that those have started."""
    found: set[int] = set()
    for child in children(pid):
        found |= {child, *descendants(child)}
    return found


def children(pid: int) -> set[int]:
    """The processes that this one has started."""
    found: set[int] = set()
    with suppress(FileNotFoundError, ProcessLookupError):  # a thread or a process that has ended meanwhile
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):
                found.update(map(int, (task / "children").read_text().split()))
    return found


def _open_files() -> Counter[str]:
    """The files and connections behind the file descriptors of this process."""
    found: Counter[str] = Counter()
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the one that lists the folder, and what another thread has closed meanwhile
            found[str(entry.readlink())] += 1
    found.pop(f"/proc/{os.getpid()}/fd", None)
    return found


def _is_warning(record: logging.LogRecord) -> bool:
    """Whether a plugin logs this, or htcgrid itself, as something that went wrong."""
    return record.levelno >= logging.WARNING and record.name.partition(".")[0] == "htcgrid"


class HeldResources:
    """The threads, file descriptors and child processes of this process."""

    def __init__(self, threads: set[str], files: Counter[str], children: int) -> None:
        self._threads, self._files, self._children = threads, files, children

    @classmethod
    def now(cls) -> "HeldResources":
        gc.collect()
        threads = {f"{thread.name}#{thread.ident}" for thread in threading.enumerate()}
        return cls(threads, _open_files(), len(children(os.getpid())))

    def beyond(self, before: "HeldResources") -> str:
        """What is held now and was not held before, as a text; empty where there is nothing."""
        held = [f"the thread {name}" for name in sorted(self._threads - before._threads)]
        more = self._files.total() - before._files.total()
        if more > 0:
            names = ", ".join(sorted(self._files - before._files)[:5])
            held.append(f"{more} more open file descriptors ({names})")
        if self._children > before._children:
            held.append(f"{self._children - before._children} more child processes")
        return ", ".join(held)
