"""`htcgrid verify`, as a plugin's author runs it."""

import json
import os
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import cast
from xml.etree import ElementTree as ET

import pytest
from htcgrid_contracts.common import descendants
from htcgrid_contracts.side_by_side import Sender
from htcgrid_contracts.subjects import Subject
from venv_for_plugins import Venv

from htcgrid.builtin.process import ProcessInvoker
from htcgrid.cli import verify
from htcgrid.planes import PooledInvoker, RemoteInvoker, SidecarInvoker
from htcgrid.spi import Invoker, Rejected


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory) -> Venv:
    return Venv(tmp_path_factory.mktemp("venv"))


@pytest.mark.slow
def test_every_rule_is_told_and_written_as_json_and_junit(venv: Venv, tmp_path: Path) -> None:
    arguments = ["verify", "sqlite", "--kind", "result-sink", "--option", "path={tmp}/grid.db"]
    verified = venv.htcgrid(*arguments, "--json", "v.json", "--junit", "v.xml", cwd=tmp_path)
    assert verified.returncode == 0
    document = json.loads((tmp_path / "v.json").read_text())
    assert (document["plugin"], document["kind"]) == ("sqlite", "result-sink")
    rules = {rule["test"]: rule for rule in document["rules"]}
    stored = rules["test_a_result_is_stored"]
    assert (stored["verdict"], stored["read"]) == ("held", "spi.ResultSink.put")
    too_large = rules["test_a_result_too_large_is_rejected_by_name_and_the_others_are_stored"]
    assert (too_large["verdict"], too_large["why"]) == (
        "not asked",
        "give --too-large: the bytes of an answer that the sink can never store",
    )
    cases = list(ET.parse(tmp_path / "v.xml").iter("testcase"))
    assert {case.attrib["name"] for case in cases} == set(rules)
    lines = verified.stdout.splitlines()
    assert "held       a result is stored" in lines
    held = sum(rule["verdict"] == "held" for rule in rules.values())
    assert lines[-1] == f"{held} rules held, 0 broken, {len(rules) - held} not asked"


def test_a_rule_that_cannot_be_asked_is_broken_when_strict(venv: Venv, tmp_path: Path) -> None:
    arguments = ["verify", "sqlite", "--kind", "result-sink", "--option", "path={tmp}/grid.db", "-k", "throttling"]
    assert venv.htcgrid(*arguments, cwd=tmp_path).returncode == 0
    strict = venv.htcgrid(*arguments, "--strict", cwd=tmp_path)
    assert strict.returncode == 1
    assert "these count as broken" in strict.stdout
    assert "| throttling is unavailable: give --throttle: a command" in strict.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["no_such_plugin"], "There is no plugin named 'no_such_plugin'. Installed: "),
        (["sqlite"], "say which with --kind task-source or --kind result-sink"),
        (["process", "--option", "worker=2"], "worker: there is no such key. Did you mean workers?"),
        (
            ["process", "--option", "workers"],
            "--option workers: write it as KEY=VALUE, for example --option workers=2.",
        ),
        (["process", "--missing", "user"], "--missing user: write it as KEY=VALUE"),
        (["process", "--missing", "usr=nobody"], "--missing: usr: there is no such key. Did you mean user?"),
        (["process", "-k", "(cancel"], "-k '(cancel' cannot be read: "),
        (["process", "-k", "cancel or"], "Give the words of one rule, or single words of rules with `and`"),
        (["process", "-k", "cancle"], "-k 'cancle' matches no rule"),
        (["process", "--list", "-k", "cancle"], "-k 'cancle' matches no rule"),
        (["process", "--json", "."], "--json . cannot be written: Is a directory. Name another file."),
        (["process", "--junit", "."], "--junit . cannot be written: Is a directory. Name another file."),
        (["process", "--json", "/proc/such.json"], "--json /proc/such.json cannot be written: No such file"),
        (["jsonl", "--kind", "task-source", "--option", "path=no-such.jsonl"], "the file does not exist"),
    ],
)
def test_wrong_usage_is_told_before_any_rule_is_asked(
    venv: Venv, tmp_path: Path, arguments: list[str], says: str
) -> None:
    refused = venv.htcgrid("verify", *arguments, cwd=tmp_path)
    assert refused.returncode == 2
    assert says in refused.stderr
    assert refused.stdout == ""


@pytest.mark.slow
def test_a_place_that_holds_tasks_is_not_emptied_unasked(venv: Venv, tmp_path: Path) -> None:
    (tmp_path / "tasks.jsonl").write_text('{"mine": 1}\n')
    arguments = ["verify", "jsonl", "--kind", "task-source", "--option", "path=tasks.jsonl"]
    refused = venv.htcgrid(*arguments, cwd=tmp_path)
    assert refused.returncode == 1
    assert "or let it empty this one with --drain" in refused.stdout


BAD = """
import os
import select
import time
from pathlib import Path
from pydantic import SecretStr
from htcgrid.builtin.memory import MemorySource
from htcgrid.spi import Rejected, Unavailable


class Hangs(MemorySource):
    def receive(self, max_tasks, wait):
        while True:
            try:
                time.sleep(1)
            except Exception:
                pass


class Tells(MemorySource):
    class Config(MemorySource.Config):
        password: SecretStr

    def receive(self, max_tasks, wait):
        return self.login(self.config.password.get_secret_value())

    def login(self, password):
        raise ValueError("login refused: " + password)


class TellsAtOnce(Tells):
    def open(self):
        self.login(self.config.password.get_secret_value())


class TellsWhatIsRefused(Tells):
    def login(self, password):
        raise Rejected("ValueError: login refused: " + password)

    open = TellsAtOnce.open


class Slow(MemorySource):
    def open(self):
        if Path("away").exists():
            raise Unavailable("the place is away")
        super().open()

    def receive(self, max_tasks, wait):
        if Path("away").exists():
            select.select([], [], [], 1.1)
            raise Unavailable("the place is away")
        return super().receive(max_tasks, wait)


class Ends(MemorySource):
    def nack(self, leases, delay):
        os._exit(7)

"""

PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "htcgrid-bad"
version = "0.1.0"
[tool.hatch.build.targets.wheel]
include = ["bad_plugins.py"]
[project.entry-points."htcgrid.task_source"]
hangs = "bad_plugins:Hangs"
tells = "bad_plugins:Tells"
tells-at-once = "bad_plugins:TellsAtOnce"
tells-what-is-refused = "bad_plugins:TellsWhatIsRefused"
ends = "bad_plugins:Ends"
slow = "bad_plugins:Slow"
"""


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Venv:
    """An environment with plugins that hang and that tell a secret."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "bad_plugins.py").write_text(BAD)
    (folder / "pyproject.toml").write_text(PROJECT)
    venv = Venv(tmp_path_factory.mktemp("bad-venv"))
    assert venv.install(folder).returncode == 0
    return venv


@pytest.mark.slow
def test_a_plugin_that_hangs_is_told_where_and_holds_nothing_up(bad: Venv, tmp_path: Path) -> None:
    verified = bad.htcgrid("verify", "hangs", "--deadline", "1", cwd=tmp_path)
    assert verified.returncode == 1
    assert "had not ended after 1 s (--deadline), and was in" in verified.stdout
    assert "bad_plugins.py" in verified.stdout
    assert "time.sleep(1)" in verified.stdout
    assert "3 rules before it came to their deadline" in verified.stdout
    assert verified.stdout.count("time.sleep(1)") == 1


@pytest.mark.slow
def test_verdicts_are_the_same_and_in_the_same_order_however_many_rules_are_tested_at_once(
    venv: Venv, tmp_path: Path
) -> None:
    arguments = ["verify", "sqlite", "--kind", "result-sink", "--option", "path=grid-{fresh}.db"]
    one, many = (venv.htcgrid(*arguments, "--jobs", jobs, cwd=tmp_path) for jobs in ("1", "4"))
    assert (one.returncode, one.stdout) == (many.returncode, many.stdout)
    assert list(tmp_path.iterdir()) == []  # the places of all processes are removed


@pytest.mark.slow
def test_a_plugin_that_ends_its_process_is_broken_and_the_other_rules_are_asked(bad: Venv, tmp_path: Path) -> None:
    verified = bad.htcgrid("verify", "ends", "--jobs", "2", cwd=tmp_path)
    assert verified.returncode == 1
    assert "BROKEN     a returned task is not ours any more" in verified.stdout
    assert verified.stdout.count("| the process that tested this rule ended in it") == 1
    assert "held       four threads lose nothing and double nothing" in verified.stdout


def test_what_is_sent_to_a_process_that_has_ended_meanwhile_ends_no_run() -> None:
    def send(name: str, **arguments: object) -> None:
        raise OSError("cannot send (already closed?)")

    node = SimpleNamespace(sendcommand=send)
    Sender(cast("Subject", None)).pytest_testnodeready(node)
    node.sendcommand("runtests", indices=[1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "jobs"), [("tells", "1"), ("tells", "2"), ("tells-at-once", "1"), ("tells-what-is-refused", "1")]
)
def test_no_secret_is_in_the_output_nor_in_the_files(bad: Venv, tmp_path: Path, name: str, jobs: str) -> None:
    arguments = ["verify", name, "--option", "password=correct-horse", "--json", "v.json", "--junit", "v.xml"]
    verified = bad.htcgrid(*arguments, "--jobs", jobs, cwd=tmp_path)
    assert verified.returncode == 1
    assert "ValueError: login refused: ***" in verified.stdout
    assert "*** stands for a secret of the config" in verified.stdout
    everything = verified.stdout + verified.stderr
    everything += (tmp_path / "v.json").read_text() + (tmp_path / "v.xml").read_text()
    assert "correct-horse" not in everything


@pytest.mark.slow
def test_a_fault_that_breaks_several_rules_is_told_once(bad: Venv, tmp_path: Path) -> None:
    verified = bad.htcgrid("verify", "tells", "--option", "password=correct-horse", cwd=tmp_path)
    assert verified.stdout.count("login refused") == 1 + verified.stdout.count('raise ValueError("login refused')
    assert "| by the same fault as: close releases all that open took" in verified.stdout


@pytest.mark.slow
def test_rules_are_chosen_listed_and_ended_at_the_first_that_is_broken(bad: Venv, tmp_path: Path) -> None:
    sqlite = ["verify", "sqlite", "--kind", "result-sink", "--option", "path={tmp}/grid.db"]
    chosen = bad.htcgrid(*sqlite, "-k", "a_result_is_stored or four_threads", cwd=tmp_path)
    assert chosen.returncode == 0
    assert chosen.stdout.splitlines()[-1] == "2 rules held, 0 broken, 0 not asked"
    none = bad.htcgrid(*sqlite, "-k", "no_such_rule", cwd=tmp_path)
    assert none.returncode == 2
    assert "--list" in none.stderr
    listed = bad.htcgrid("verify", "sqlite", "--kind", "result-sink", "--list", cwd=tmp_path)
    assert listed.returncode == 0
    assert "a result is stored\n           | `put` must store the id, answer" in listed.stdout
    assert "| read: spi.ResultSink.put" in listed.stdout
    few = bad.htcgrid("verify", "sqlite", "--kind", "result-sink", "--list", "-k", "four_threads", cwd=tmp_path)
    assert few.stdout.splitlines()[-1].startswith("1 rule. Those that are tested with several values")
    by_words = bad.htcgrid("verify", "sqlite", "--kind", "result-sink", "--list", "-k", "four threads", cwd=tmp_path)
    assert by_words.stdout == few.stdout
    first = bad.htcgrid("verify", "tells", "--option", "password=correct-horse", "-x", cwd=tmp_path)
    assert first.returncode == 1
    assert first.stdout.splitlines()[-1].startswith("6 rules held, 1 broken")


@pytest.mark.slow
def test_rules_about_the_plugin_alone_are_asked_of_one_that_cannot_receive(bad: Venv, tmp_path: Path) -> None:
    verified = bad.htcgrid("verify", "tells", "--option", "password=correct-horse", cwd=tmp_path)
    for rule in ("it is written for this version of the interface", "constructing opens nothing"):
        assert f"held       {rule}" in verified.stdout


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_verdicts_that_nobody_reads_end_it_quietly(bad: Venv, tmp_path: Path, jobs: str) -> None:
    closed = "import os, sys; r, w = os.pipe(); os.close(r); os.dup2(w, 1); from htcgrid.cli import main; main()"
    verified = bad.run("-c", closed, "verify", "memory", "--kind", "task-source", "--jobs", jobs, cwd=tmp_path)
    assert (verified.returncode, verified.stderr) == (128 + signal.SIGPIPE, "")


@pytest.mark.slow
def test_what_the_author_tells_of_the_place_is_asked(bad: Venv, tmp_path: Path) -> None:
    sqlite = ["verify", "sqlite", "--kind", "result-sink", "--option", "path={tmp}/grid.db", "--strict"]
    missing = ["-k", "not_there_is_a_clear_error"]
    assert bad.htcgrid(*sqlite, *missing, cwd=tmp_path).returncode == 1
    given = bad.htcgrid(*sqlite, *missing, "--missing", "path=/no/such/grid.db", cwd=tmp_path)
    assert given.returncode == 0
    assert "1 rules held, 0 broken, 0 not asked" in given.stdout
    away = ["-k", "went_away_is_unavailable", "--take-away", "touch away", "--bring-back", "rm away"]
    taken = bad.htcgrid(*sqlite, *away, cwd=tmp_path)
    assert taken.returncode == 1  # a file does not go away by that, so nothing is raised
    assert "put raised nothing though its place was taken away" in taken.stdout
    assert not (tmp_path / "away").exists()
    limits = [
        *sqlite,
        "-k",
        "throttling_is_unavailable",
        "--throttle",
        "touch refusing",
        "--end-throttle",
        "rm refusing",
    ]
    assert "raised nothing" in bad.htcgrid(*limits, cwd=tmp_path).stdout
    assert not (tmp_path / "refusing").exists()
    too_large = bad.htcgrid(*sqlite, "-k", "too_large", "--too-large", "1000", cwd=tmp_path)
    assert "the call went through, and should have raised" in too_large.stdout


def test_how_long_an_attempt_may_take_is_as_the_author_says(bad: Venv, tmp_path: Path) -> None:
    slow = ["verify", "slow", "-k", "went_away_is_unavailable", "--take-away", "touch away", "--bring-back", "rm away"]
    assert bad.htcgrid(*slow, cwd=tmp_path).returncode == 0
    short = bad.htcgrid(*slow, "--away-seconds", "1", cwd=tmp_path)
    assert short.returncode == 1
    assert "receive took 1 s to say Unavailable, and 1 s are allowed" in short.stdout


@pytest.mark.slow
@pytest.mark.parametrize("jobs", ["1", "3"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_when_it_is_asked_to_and_leaves_no_process_and_no_file(
    venv: Venv, tmp_path: Path, number: signal.Signals, jobs: str
) -> None:
    command: list[str | Path] = [
        venv.python,
        "-c",
        "from htcgrid.cli import main; main()",
        "verify",
        "process",
        "--jobs",
        jobs,
    ]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        assert run.stdout is not None
        run.stdout.readline()  # the first verdict
        family = descendants(run.pid)
        run.send_signal(number)
        _, errors = run.communicate(timeout=60)
    assert (run.returncode, errors.strip()) == (128 + number, b"")
    assert not [pid for pid in family if Path(f"/proc/{pid}").exists()]
    assert list(tmp_path.iterdir()) == []


def test_places_with_a_fresh_word_are_removed(bad: Venv, tmp_path: Path) -> None:
    sqlite = ["verify", "sqlite", "--kind", "result-sink", "--option", "path=grid-{fresh}.db"]
    verified = bad.htcgrid(*sqlite, "-k", "a_result_is_stored", "--remove", "echo {fresh} >> removed", cwd=tmp_path)
    assert verified.returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["removed"]
    assert len((tmp_path / "removed").read_text().split()) >= 3


@pytest.mark.parametrize(
    ("plane", "owns"),
    [(ProcessInvoker, True), (PooledInvoker, True), (Invoker, False), (RemoteInvoker, False), (SidecarInvoker, False)],
)
def test_planes_that_may_share_a_service_are_tested_rule_by_rule(plane: type[Invoker], owns: bool) -> None:
    assert verify.starts_its_own(plane) is owns


def test_without_the_kit_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "entry_points", lambda **_: [])
    assert verify.command.callback is not None
    with pytest.raises(Rejected, match="pip install htcgrid-contracts"):
        verify.command.callback("process", None, (), 1.0, False, False, None, None, False)
