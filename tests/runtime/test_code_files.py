import os
from pathlib import Path

import pytest

from htcgrid.runtime.code_files import IGNORE_FILE, collect
from htcgrid.spi import Rejected


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    code = tmp_path / "code"
    code.mkdir()
    (code / "handler.py").write_text("x = 1\n")
    return code


def put(path: Path, text: str = "SECRET") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def names(folder: Path) -> list[str]:
    return [file.name for file in collect(folder).files]


@pytest.mark.parametrize(
    "name",
    [
        ".env",
        ".env.production",
        ".git/config",
        ".aws/credentials",
        ".ssh/config",
        ".netrc",
        ".npmrc",
        ".kube/config",
        ".venv/lib/a.py",
        "server.pem",
        "deep/er/SERVER.PEM",
        "private.key",
        "id_rsa",
        "id_ed25519.pub",
        "htcgrid.toml",
        "deep/.env",
        "__pycache__/a.pyc",
    ],
)
def test_what_may_hold_a_secret_is_never_packed_by_default(folder: Path, name: str) -> None:
    put(folder / name)
    assert names(folder) == ["handler.py"]


def test_what_is_left_out_is_said_with_the_way_to_have_it_packed(folder: Path) -> None:
    put(folder / ".env")
    put(folder / "__pycache__" / "a.pyc")
    assert collect(folder).note().startswith("Left out of the code: .env. ")
    assert f"!NAME into {IGNORE_FILE}" in collect(folder).note()


def test_the_ignore_file_leaves_out_more_and_packs_what_it_names_with_an_exclamation_mark(folder: Path) -> None:
    put(folder / IGNORE_FILE, "# notes\n*.csv\n!.env.example\n!public.pem\ndata/\n")
    for name in ("a.csv", ".env", ".env.example", "public.pem", "private.pem", "data/x.py"):
        put(folder / name)
    assert names(folder) == [".env.example", "handler.py", "public.pem"]


def test_the_authorities_that_a_client_library_brings_are_packed(folder: Path) -> None:
    put(folder / "certifi" / "cacert.pem")
    assert names(folder) == ["certifi/cacert.pem", "handler.py"]


def test_a_link_out_of_the_folder_is_left_out_and_said(folder: Path, tmp_path: Path) -> None:
    put(tmp_path / "outside" / "secret.txt")
    (folder / "file.txt").symlink_to(tmp_path / "outside" / "secret.txt")
    (folder / "shared").symlink_to(tmp_path / "outside")
    (folder / "up").symlink_to("..")
    found = collect(folder)
    assert [file.name for file in found.files] == ["handler.py"]
    assert found.left_out["file.txt"] == found.left_out["shared"] == found.left_out["up"] == "a link out of the folder"


def test_a_link_to_what_is_left_out_is_left_out(folder: Path) -> None:
    put(folder / ".env")
    put(folder / ".aws" / "credentials")
    (folder / "settings.txt").symlink_to(".env")
    (folder / "keys.txt").symlink_to(".aws/credentials")
    (folder / "aws").symlink_to(".aws")
    assert names(folder) == ["handler.py"]


def test_what_is_left_out_of_a_folder_is_left_out_where_a_link_leads_there_too(folder: Path) -> None:
    put(folder / "data" / "table.csv")
    put(folder / "data" / "private" / "people.csv")
    put(folder / "data" / "keys.csv")
    (folder / IGNORE_FILE).write_text("/data/private/\n/data/keys.csv\n")
    (folder / "inputs").symlink_to("data")
    assert names(folder) == ["data/table.csv", "handler.py", "inputs/table.csv"]


def test_a_link_within_the_folder_is_packed_as_what_it_leads_to(folder: Path) -> None:
    put(folder / "lib" / "a.py", "a")
    (folder / "alias.py").symlink_to("lib/a.py")
    (folder / "vendor").symlink_to("lib")
    assert names(folder) == ["alias.py", "handler.py", "lib/a.py", "vendor/a.py"]
    assert collect(folder).files[0].read() == b"a"


def test_links_in_a_circle_end(folder: Path) -> None:
    for number in range(12):
        (folder / f"here{number}").symlink_to(".")
        other = folder / f"d{number}"
        other.mkdir()
        for each in range(12):
            (other / f"x{each}").symlink_to(f"../d{each}")
    (folder / "self").symlink_to("self")
    (folder / "gone").symlink_to("nothing")
    assert names(folder) == ["handler.py"]


def test_what_is_not_a_file_is_left_out(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    (folder / "null").symlink_to("pipe")
    found = collect(folder)
    assert [file.name for file in found.files] == ["handler.py"]
    assert found.left_out == {"null": "not a file", "pipe": "not a file"}


def test_everybody_may_read_what_is_packed_and_run_what_its_owner_may_run(folder: Path) -> None:
    put(folder / "bootstrap").chmod(0o700)
    (folder / "handler.py").chmod(0o600)
    assert {file.name: oct(file.mode) for file in collect(folder).files} == {
        "bootstrap": "0o755",
        "handler.py": "0o644",
    }


def test_the_code_folder_itself_may_be_a_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to("code")
    assert names(tmp_path / "current") == ["handler.py"]


def test_a_name_that_is_not_utf_8_is_refused_with_the_name(folder: Path) -> None:
    (Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.py"))).write_text("x")
    with pytest.raises(Rejected, match="not UTF-8"):
        collect(folder)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="there is no such folder"):
        collect(tmp_path / "none")


def test_folders_that_are_nested_too_deep_are_refused_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(1200):
        Path("d").mkdir()
        os.chdir("d")
    with pytest.raises(Rejected, match="nested too deep"):
        collect(tmp_path)
    while Path.cwd() != tmp_path:  # pytest removes folders by recursion as well
        os.chdir("..")
        Path("d").rmdir()
