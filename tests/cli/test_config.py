"""What the config file, the environment and the command line may say, through the real program."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from program_end import output_at_end
from pydantic import SecretStr

from htcgrid import config, plugins, secret_values
from htcgrid.cli.deploy import _require_no_secrets
from htcgrid.spi import Plugin, Rejected

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Done, Project

    Inside = Callable[..., Done]

BAD_FILES = {
    "an unknown key": ('[function]\nhandlr = "job.handler"\n', ["[function] handlr: there is no such key", "handler?"]),
    "an unknown table": ("[sorce]\nx = 1\n", ["sorce: there is no such key. Did you mean source?"]),
    "an unknown key of a plugin": (
        '[source]\nplugin = "jsonl"\npath = "t"\nid = "x"\n[sink]\nplugin = "memory"\n[function]\nhandler = "a.b"\n',
        ["[source] id: there is no such key. There are: path, id_field."],
    ),
    "a missing key of a plugin": (
        '[source]\nplugin = "jsonl"\n',
        ["[source] path: this key is missing. It is a file of JSON lines"],
    ),
    "a table without a plugin": ('[source]\npath = "t"\n', ["[source] plugin: this key is missing", "htcgrid plugins"]),
    "a plane without a plugin": (
        "[planes.local]\nworkers = 2\n",
        ["[planes.local] plugin: this key is missing. It is"],
    ),
    "a key near to one of a plugin": (
        '[source]\nplugin = "jsonl"\npaht = "t"\n',
        ["[source] paht: there is no such key. Did you mean path?"],
    ),
    "no source": ('[function]\nhandler = "a.b"\n', ["[source] is missing. Write, for example:", 'plugin = "jsonl"']),
    "no sink": ('[source]\nplugin = "memory"\n', ["[sink] is missing. Write, for example:", 'path = "results.jsonl"']),
    "a plane that is not there": (
        'plane = "docker"\n[source]\nplugin = "memory"\n[sink]\nplugin = "memory"\n[planes.local]\nplugin = "process"\n',
        ["plane = 'docker', but [planes] has only: local."],
    ),
    "a word for a number": ('[function]\ntimeout = "soon"\n', ["[function] timeout = 'soon': ", "seconds"]),
    "a number out of bounds": ("[function]\ntimeout = 0\n", ["[function] timeout = 0: ", "greater than 0"]),
    "too little memory": ("[function]\nmemory = 1\n", ["[function] memory = 1: ", "MiB"]),
    "a value for a table": ("source = 5\n", ["source = 5: this must be a table. Write [source]"]),
    "a reserved variable": (
        '[function]\nenvironment = { AWS_REGION = "x" }\n',
        ["[function] environment = ", "AWS_REGION: reserved by Lambda"],
    ),
    "an unknown kind of failure": ("[agent.attempts]\nexplosion = 2\n", ["explosion", "handler_error"]),
    "tries of initialisation": (
        "[agent.attempts]\ninit_error = 2\n",
        ["init_error has its own rule", "init_errors_limit"],
    ),
    "an unknown plugin": (
        '[source]\nplugin = "kafka"\n',
        ["There is no task source named 'kafka'. Installed: ", "jsonl", "memory"],
    ),
    "a plugin of ours that is not installed": (
        '[source]\nplugin = "memory"\n[sink]\nplugin = "memory"\n[planes.local]\nplugin = "htc_gird"\n',
        ["There is no compute plane named 'htc_gird'. Installed: ", "process"],
    ),
    "no TOML": ("[function\n", ["htcgrid.toml is not TOML: ", "line 1"]),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_config_with(case: str, project: Project, inside: Inside) -> None:
    text, said = BAD_FILES[case]
    project.write("htcgrid.toml", text)
    done = inside("run")
    assert done.status == 2
    assert done.err.startswith("htcgrid: ")
    for words in said:
        assert words in done.err
    assert project.results() == []


def test_every_wrong_key_is_told_at_once(project: Project, inside: Inside) -> None:
    project.write("htcgrid.toml", "[function]\ntimeout = 0\nmemory = 1\nspeed = 9\n")
    lines = inside("run").err.splitlines()
    assert len([line for line in lines if "htcgrid.toml: [function]" in line]) == 3


def test_a_file_that_is_named_and_missing(inside: Inside) -> None:
    done = inside("run", "--config", "other.toml")
    assert (done.status, done.err) == (2, "htcgrid: other.toml: there is no such file. `htcgrid init` writes one.\n")


def test_a_file_that_cannot_be_read(project: Project, inside: Inside) -> None:
    (project.folder / "folder.toml").mkdir()
    done = inside("run", "-c", "folder.toml")
    assert (done.status, done.err) == (2, "htcgrid: folder.toml cannot be read: Is a directory.\n")


def test_a_file_that_is_no_text(project: Project, inside: Inside) -> None:
    (project.folder / "htcgrid.toml").write_bytes(b"\xff\xfe\x00")
    done = inside("run")
    assert done.status == 2
    assert "htcgrid.toml is not TOML: " in done.err


@pytest.mark.parametrize(
    "command", [["run"], ["run", "--fail-fast"], ["invoke", "{}"], ["check"], ["status"], ["deploy"]]
)
def test_in_a_folder_without_a_config_it_says_so(project: Project, inside: Inside, command: list[str]) -> None:
    (project.folder / "htcgrid.toml").unlink()
    done = inside(*command)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("htcgrid: There is no htcgrid.toml in this folder. ")


def test_a_config_of_options_alone_is_told_what_it_lacks(project: Project, inside: Inside) -> None:
    (project.folder / "htcgrid.toml").unlink()
    done = inside("run", "--set", "function.handler=job.handler")
    assert done.status == 2
    assert "[source] is missing. Write, for example:" in done.err


def test_addresses_of_agents_are_enough_for_top(project: Project, inside: Inside) -> None:
    (project.folder / "htcgrid.toml").unlink()
    done = inside("top", "--once", "--agent", "127.0.0.1:1")
    assert (done.status, "127.0.0.1:1  does not answer" in done.out) == (0, True)


# --- who is stronger ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env", "flags", "seen"),
    [
        ({}, [], "file"),
        ({"HTCGRID_FUNCTION__ENVIRONMENT": '{"WHO": "environment"}'}, [], "environment"),
        ({"HTCGRID_FUNCTION__ENVIRONMENT__WHO": "environment"}, [], "environment"),
        (
            {"HTCGRID_FUNCTION__ENVIRONMENT": '{"WHO": "environment"}'},
            ["--set", "function.environment.WHO=flag"],
            "flag",
        ),
        ({}, ["--set", "function.environment={WHO = 'toml'}"], "toml"),
    ],
)
def test_flags_are_stronger_than_the_environment_and_that_than_the_file(
    project: Project, env: dict[str, str], flags: list[str], seen: str
) -> None:
    config = (project.folder / "htcgrid.toml").read_text()
    project.write("htcgrid.toml", config.replace("[source]", 'environment = { WHO = "file" }\n[source]', 1))
    done = project.htcgrid("invoke", '{"variable": "WHO"}', *flags, env=env)
    assert (done.status, done.out) == (0, f'"{seen}"\n'), done.err


def test_a_handlers_variable_keeps_its_name_in_every_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "htcgrid.toml"
    file.write_text('[function]\nhandler = "job.handler"\n[functions.resize]\nhandler = "job.resize"\n')
    given = {"BUCKET": "photos", "Logging__LogLevel__Default": "Debug", "LIMIT": "5", "limit": "6"}
    for name, value in given.items():
        monkeypatch.setenv(f"HTCGRID_FUNCTION__ENVIRONMENT__{name}", value)
        monkeypatch.setenv(f"HTCGRID_FUNCTIONS__RESIZE__ENVIRONMENT__{name}", value)
    settings = config.read(file).settings
    assert settings.function.environment == given
    assert settings.functions["resize"].environment == given


def test_the_plane_is_chosen_by_flag_or_environment(project: Project) -> None:
    for arguments, env in ((["--plane", "none"], {}), ([], {"HTCGRID_PLANE": "none"})):
        done = project.htcgrid("run", *arguments, env=env)
        assert done.status == 2
        assert "plane = 'none', but [planes] has only: local, single." in done.err
    assert project.htcgrid("run", "--plane", "single", env={"HTCGRID_PLANE": "none"}).status == 0


@pytest.mark.parametrize(
    ("arguments", "env"),
    [
        (["--sink", "memory"], {}),
        (["--set", "sink.plugin=memory"], {}),
        ([], {"HTCGRID_SINK__PLUGIN": "memory"}),
    ],
    ids=["flag", "set", "environment"],
)
def test_a_sink_is_swapped_with_its_whole_table(project: Project, arguments: list[str], env: dict[str, str]) -> None:
    done = project.htcgrid("run", *arguments, env=env)
    assert (done.status, done.summary["succeeded"]) == (0, 3), done.err
    assert project.results() == []


def test_one_option_of_a_plugin_is_set_by_environment_beside_the_others(project: Project) -> None:
    project.write("other.jsonl", "7\n")
    env = {"HTCGRID_SOURCE__PATH": "other.jsonl", "HTCGRID_SINK__PATH": "other-results.jsonl"}
    assert project.htcgrid("run", env=env).status == 0
    assert [result["output"] for result in project.results("other-results.jsonl")] == [7]


def test_an_unknown_variable_of_ours_is_refused(project: Project) -> None:
    done = project.htcgrid("run", env={"HTCGRID_PLAIN": "local"})
    assert done.status == 2
    assert "environment: HTCGRID_PLAIN is not a setting. There are: HTCGRID_PLANE, " in done.err


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        (["source.path"], "--set source.path: write it as KEY=VALUE, for example"),
        (["=5"], "--set =5: write it as KEY=VALUE"),
        (["plane=a", "plane.b=1"], "--set plane.b=1: another --set gives 'plane' itself a value."),
        (["source=5"], "source = 5: this must be a table"),
        (["agent.grace=soon"], "[agent] grace = 'soon'"),
        (["sorce.path=x"], "sorce: there is no such key. Did you mean source?"),
    ],
)
def test_a_set_that_makes_no_sense_is_refused(inside: Inside, pairs: list[str], said: str) -> None:
    done = inside("run", *(word for pair in pairs for word in ("--set", pair)))
    assert done.status == 2
    assert said in done.err


def test_paths_are_relative_to_the_folder_of_the_config(project: Project) -> None:
    (project.folder / "elsewhere").mkdir()
    program = project.start("run", "-c", str(project.folder / "htcgrid.toml"))
    output_at_end(program)
    inside = type(project)(project.folder / "elsewhere")
    done = inside.htcgrid("run", "-c", "../htcgrid.toml")
    assert (done.status, done.summary["already_stored"]) == (0, 3)
    assert list((project.folder / "elsewhere").iterdir()) == []


SECRET = "hunter2secret"
QUEUE = '[source]\nplugin = "memory"\n[sink]\nplugin = "memory"\n'


@pytest.mark.parametrize(
    "text",
    [
        f'[function]\nenvironment = {{ DB_PASSWORD = "{SECRET}", AWS_REGION = "x" }}\n',
        f'[function]\nenvironment = ["DB_PASSWORD={SECRET}"]\n',
        f'[function]\nenvironment = "DB_PASSWORD={SECRET}"\n',
        f'[function]\nenvironment = {{ DB_PASSWORD = ["{SECRET}"] }}\n',
        f'[function]\nenvironment = {{ "A=B" = "{SECRET}" }}\n',
        f'[function]\nenvironment = {{ DB_PASSWORD = "{SECRET}\\u0000" }}\n',
        f'[function]\ntimeout = ["{SECRET}"]\n',
        f'[functions.a]\nenvironment = {{ DB_PASSWORD = "{SECRET}", AWS_REGION = "x" }}\n',
        f'source = "redis://me:{SECRET}@host"\n',
        f'{QUEUE}[planes.local]\nplugin = "process"\npassword = "{SECRET}"\n',
        f'{QUEUE}[planes.local]\nplugin = "process"\nworkers = "https://me:{SECRET}@host"\n',
        f'[agent]\ngrace = {{ password = "{SECRET}" }}\n',
    ],
)
def test_an_error_never_shows_what_may_be_a_secret(project: Project, inside: Inside, text: str) -> None:
    (project.folder / "htcgrid.toml").write_text(text)
    done = inside("run")
    assert done.status == 2
    assert SECRET not in done.out + done.err


def test_a_password_given_as_a_variable_is_in_no_dump_and_no_repr(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "htcgrid.toml"
    file.write_text('[source]\nplugin = "redis"\nurl = "redis://host"\n[sink]\nplugin = "memory"\n')
    monkeypatch.setenv("HTCGRID_SOURCE__PASSWORD", SECRET)
    grid = config.read(file)
    assert grid.settings.source is not None
    assert grid.settings.source.options == {"url": "redis://host", "password": SECRET}
    for dump in (grid.settings.model_dump(mode="json", exclude_unset=True), grid.settings.model_dump()):
        assert dump["source"] == {"plugin": "redis", "url": "redis://host"}
    assert SECRET not in repr(grid) + str(grid.settings) + grid.settings.model_dump_json()
    written = file.with_name("written.toml")
    written.write_text(f'[source]\nplugin = "redis"\npassword = "{SECRET}"\n')
    assert SECRET not in repr(config.read(written))
    assert grid.from_variables() == ["source.password"]


class _Queue(Plugin.Config):
    url: SecretStr = SecretStr("redis://localhost")
    password: SecretStr = SecretStr("")
    mirrors: tuple[str, ...] = ()


@pytest.mark.parametrize(
    ("given", "secret"),
    [
        ({}, []),
        ({"url": "redis://host:1/0"}, []),
        ({"url": f"redis://:{SECRET}@host"}, ["url"]),
        ({"password": SECRET}, ["password"]),
        ({"mirrors": ["https://host", f"https://me:{SECRET}@host"]}, ["mirrors"]),
    ],
)
def test_a_secret_field_and_an_address_with_a_password_are_secret(given: dict[str, Any], secret: list[str]) -> None:
    assert list(secret_values.secrets_of(_Queue.model_validate(given))) == secret


class _Source(Plugin):
    class Config(_Queue):
        pass


@pytest.mark.parametrize("key", ["password", "url"])
def test_deploy_refuses_a_secret_that_is_written_in_the_file_and_takes_it_as_a_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], key: str
) -> None:
    value = {"password": SECRET, "url": f"redis://:{SECRET}@host"}[key]
    monkeypatch.setattr(plugins, "load", lambda _kind, _name: _Source)
    file = tmp_path / "htcgrid.toml"
    file.write_text(f'[source]\nplugin = "q"\n{key} = "{value}"\n')
    with pytest.raises(Rejected, match=f"source.{key}: a secret is not deployed") as caught:
        _require_no_secrets(config.read(file))
    assert SECRET not in str(caught.value)
    file.write_text('[source]\nplugin = "q"\n')
    monkeypatch.setenv(f"HTCGRID_SOURCE__{key.upper()}", value)
    _require_no_secrets(config.read(file))
    said = capsys.readouterr().err
    assert f"source.{key} is not deployed, since it comes from HTCGRID_SOURCE__{key.upper()}" in said
    assert SECRET not in said
