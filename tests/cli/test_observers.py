"""`[observers.NAME]`: opened by what runs tasks, and never a reason for a run to end otherwise."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from program_end import output_at_end

OBSERVERS = '''
import threading, time
from collections import Counter
from htcgrid.spi import Observer, Rejected, Stored

class Counting(Observer):
    """Writes into a file what it was told, when it is closed."""

    class Config(Observer.Config):
        path: str
        password: str = ""

    def __init__(self, config, function):
        super().__init__(config, function)
        self._told = Counter()

    def open(self):
        open(self.config.path, "w").close()

    def observe(self, observations):
        for each in observations:
            self._told[type(each).__name__] += 1
            if isinstance(each, Stored):
                self._told["results"] += len(each.results)

    def close(self):
        import json
        with open(self.config.path, "w") as file:
            json.dump(self._told, file)

class Raising(Observer):
    def observe(self, observations):
        raise ZeroDivisionError("a bug of the observer")

class Blocking(Observer):
    def observe(self, observations):
        time.sleep(60)

class Refusing(Raising):
    def open(self):
        raise Rejected("The address 127.0.0.1:9 is taken. Choose another.")

class Slow(Observer):
    """Lets its queue fill, which is made a short one."""
    def open(self):
        from htcgrid.agent import observing
        observing.MOST_TASKS = 500

    def observe(self, observations):
        time.sleep(0.5)
'''

NAMES = ["Counting", "Raising", "Blocking", "Refusing", "Slow"]


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """The variables with which a program finds these observers."""
    site = tmp_path / "site"
    info = site / "many_observers-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: many-observers\nVersion: 1.2\n")
    points = "".join(f"{name.lower()} = many_observers:{name}\n" for name in NAMES)
    (info / "entry_points.txt").write_text(f"[htcgrid.observer]\n{points}")
    (site / "many_observers.py").write_text(OBSERVERS)
    return {"PYTHONPATH": str(site), "XDG_CACHE_HOME": str(site / "cache")}


def told(project: Any) -> dict[str, int]:
    found: dict[str, int] = json.loads((project.folder / "told.json").read_text())
    return found


def observed_by(project: Any, tables: str) -> None:
    config = project.folder / "htcgrid.toml"
    config.write_text(config.read_text().partition("\n[observers")[0] + tables)


COUNTING = '\n[observers.counting]\npath = "told.json"\n'


def test_an_observer_is_told_what_the_summary_says(project: Any, env: dict[str, str]) -> None:
    observed_by(project, COUNTING)
    project.tasks(*[{"n": number} for number in range(20)], {"raise": "no"}, {"exit": 3})
    done = project.htcgrid("run", "--quiet", env=env)
    summary, counts = done.summary, told(project)
    assert counts["results"] == summary["succeeded"] + summary["failed"] == 22
    assert counts["Retried"] == summary["retried"] == 2
    assert counts["EnvironmentStarted"] == counts["EnvironmentEnded"] >= 2


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("raising", "The observer 'raising' raised an error"),
        ("blocking", "The observer 'blocking' was still busy 2 s after the end of the run"),
        ("slow", "The observer 'slow' was not told of everything"),
    ],
)
def test_a_run_ends_as_it_would_have_without_an_observer_that_misbehaves(
    project: Any, env: dict[str, str], name: str, said: str
) -> None:
    project.tasks(*[{"n": number} for number in range(2000)], {"raise": "no"})
    alone = project.htcgrid("run", "--quiet", env=env)
    before = sorted((r["id"], r["status"], r["attempt"]) for r in project.results())
    (project.folder / "results.jsonl").unlink()
    observed_by(project, f"\n[observers.{name}]\n")
    program = project.start("run", "--quiet", env=env)
    _, err = output_at_end(program, seconds=50)  # the observer that blocks does so for a minute
    assert program.returncode == alone.status == 1
    assert sorted((r["id"], r["status"], r["attempt"]) for r in project.results()) == before
    assert said in err
    assert err.count("raised an error") <= 1


def test_an_observer_that_cannot_be_opened_ends_the_run_before_anything_runs(project: Any, env: dict[str, str]) -> None:
    observed_by(project, "\n[observers.refusing]\n")
    project.tasks({"n": 1})
    done = project.htcgrid("run", env=env)
    assert (done.status, project.results()) == (2, [])
    assert "The address 127.0.0.1:9 is taken" in done.err


def test_the_plugin_of_an_observer_is_its_name_unless_it_is_given(project: Any, env: dict[str, str]) -> None:
    observed_by(project, '\n[observers.mine]\nplugin = "counting"\npath = "told.json"\n')
    project.tasks({"n": 1})
    assert project.htcgrid("run", env=env).status == 0
    assert told(project)["results"] == 1


def test_an_observer_can_be_given_by_a_variable(project: Any, env: dict[str, str]) -> None:
    project.tasks({"n": 1})
    path = str(project.folder / "told.json")
    assert project.htcgrid("run", env={**env, "HTCGRID_OBSERVERS__COUNTING__PATH": path}).status == 0
    assert told(project)["results"] == 1


def test_check_names_an_observer_and_what_is_wrong_with_it(project: Any, env: dict[str, str]) -> None:
    observed_by(project, "\n[observers.counting]\npaht = 'told.json'\n")
    project.tasks({"n": 1})
    done = project.htcgrid("check", env=env)
    assert done.status == 2
    assert "wrong  observers.counting" in done.out
    assert "paht" in done.out
    observed_by(project, "\n[observers.countin]\n")
    assert "There is no observer named 'countin'" in project.htcgrid("check", env=env).out


def test_plugins_lists_observers(project: Any, env: dict[str, str]) -> None:
    out = project.htcgrid("plugins", env=env).out
    assert any(line.split()[:2] == ["observer", "counting"] for line in out.splitlines())


def test_commands_that_only_read_open_no_observer(project: Any, env: dict[str, str]) -> None:
    project.tasks({"n": 1})
    project.htcgrid("run", "--quiet", env=env)
    observed_by(project, "\n[observers.refusing]\n")
    for command in (["results"], ["failures"], ["invoke", "{}"], ["check"]):
        assert "is taken" not in project.htcgrid(*command, env=env).err


def test_an_embedded_grid_has_its_observers(project: Any, env: dict[str, str]) -> None:
    observed_by(project, COUNTING)
    script = "from htcgrid import Grid\nwith Grid.open('htcgrid.toml') as grid: print(list(grid.map([1, 2, 3])))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=project.folder,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout == "[1, 2, 3]\n", done.stderr
    assert told(project)["results"] == 3


def test_serve_tells_of_calls_that_are_waited_for_and_of_events(
    project: Any, env: dict[str, str], until: Callable[[Callable[[], object]], None]
) -> None:
    begun = project.folder / "begun"
    observed_by(project, COUNTING)
    served = project.start("serve", "--port", "0", env=env)
    assert served.stderr is not None
    port = int(served.stderr.readline().rpartition(":")[2])
    for kind in ("RequestResponse", "Event"):
        call = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        headers = {"X-Amz-Invocation-Type": kind}
        call.request("POST", "/2015-03-31/functions/job/invocations", json.dumps({"touch": str(begun)}), headers)
        assert call.getresponse().status in {200, 202}
        call.close()
        until(begun.exists)
        begun.unlink()
    served.send_signal(signal.SIGTERM)
    output_at_end(served)
    counts = told(project)
    assert counts["Answered"] == counts["results"] == 1
    assert counts["EnvironmentStarted"] == counts["EnvironmentEnded"] == 2
