import io
import os
import zipfile
from pathlib import Path

import pytest
from htcgrid.planes.requirements import install, platforms
from htcgrid.spi import Function, Rejected

from htcgrid_aws_lambda import archive, function_code
from htcgrid_aws_lambda.desired import desired
from htcgrid_aws_lambda.lambda_options import Options


def folder(path: Path, **files: str) -> Path:
    for name, text in files.items():
        target = path / name.replace("__", "/").replace("_py", ".py")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    return path


def names(built: archive.Archive) -> list[str]:
    return zipfile.ZipFile(io.BytesIO(built.data)).namelist()


def test_the_same_files_make_the_same_zip_whenever_and_wherever_they_lie(tmp_path: Path) -> None:
    here = folder(tmp_path / "here", a_py="1", pkg__b_py="2")
    there = folder(tmp_path / "there", pkg__b_py="2", a_py="1")
    os.utime(there / "a.py", (1, 1))
    assert archive.build([here], {}).sha256 == archive.build([there], {}).sha256


def test_other_files_make_another_zip(tmp_path: Path) -> None:
    one, two = folder(tmp_path / "1", a_py="1"), folder(tmp_path / "2", a_py="2")
    assert archive.build([one], {}).sha256 != archive.build([two], {}).sha256


def test_hidden_files_and_caches_are_left_out(tmp_path: Path) -> None:
    folder(tmp_path, a_py="1", __pycache____a="x")
    (tmp_path / ".env").write_text("SECRET=1")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "config").write_text("x")
    (tmp_path / "b.pyc").write_text("x")
    assert names(archive.build([tmp_path], {})) == ["a.py"]


def test_programs_stay_programs(tmp_path: Path) -> None:
    folder(tmp_path, a_py="1")
    (tmp_path / "tool").write_text("#!/bin/sh\n")
    (tmp_path / "tool").chmod(0o755)
    entries = zipfile.ZipFile(io.BytesIO(archive.build([tmp_path], {}).data)).infolist()
    assert {entry.filename: oct(entry.external_attr >> 16) for entry in entries} == {
        "a.py": "0o100644",
        "tool": "0o100755",
    }


def test_code_that_is_too_large_unpacked_is_rejected_with_the_ways_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "UNZIPPED_BYTES", 3)
    with pytest.raises(Rejected, match="`image`"):
        archive.build([folder(tmp_path, a_py="1234")], {})


def test_a_command_gets_the_bootstrap_that_aws_starts(tmp_path: Path) -> None:
    function = Function(command=("./main", "it's"), name="go", code=folder(tmp_path, main="x"))
    built = function_code.build(function, desired(function, Options(), "role"))
    assert built is not None
    script = zipfile.ZipFile(io.BytesIO(built.data)).read("bootstrap").decode()
    assert script.endswith("""exec ./main 'it'"'"'s'\n""")


def test_pip_is_asked_for_wheels_that_the_runtime_can_load() -> None:
    assert platforms("3.11", "x86_64")[0] == "manylinux_2_26_x86_64"
    assert platforms("3.13", "arm64")[0] == "manylinux_2_34_aarch64"
    assert platforms("3.13", "arm64")[-1] == "manylinux2014_aarch64"


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A wheel for one architecture alone, so that pip shows what it was asked for."""
    path = tmp_path / "only_arm-1.0-py3-none-manylinux2014_aarch64.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("only_arm.py", "X = 1\n")
        wheel.writestr("only_arm-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: only-arm\nVersion: 1.0\n")
        tag = "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: false\nTag: py3-none-manylinux2014_aarch64\n"
        wheel.writestr("only_arm-1.0.dist-info/WHEEL", tag)
        wheel.writestr("only_arm-1.0.dist-info/RECORD", "")
    return path


def test_requirements_are_installed_for_the_functions_architecture_not_this_machines(
    tmp_path: Path, wheel: Path
) -> None:
    source = folder(tmp_path / "src", a_py="import only_arm")
    (source / "requirements.txt").write_text(f"--no-index\n--find-links {wheel.parent}\nonly-arm==1.0\n")
    function = Function(handler="a.handler", runtime="python3.12", architecture="arm64", code=source)
    wanted = desired(function, Options(), "role")
    built, again = function_code.build(function, wanted), function_code.build(function, wanted)
    assert built is not None
    assert again is not None
    assert {"a.py", "only_arm.py"} <= set(names(built))
    assert built.sha256 == again.sha256


def test_a_requirement_without_a_wheel_for_it_is_rejected_in_pips_words(tmp_path: Path, wheel: Path) -> None:
    (tmp_path / "requirements.txt").write_text(f"--no-index\n--find-links {wheel.parent}\nonly-arm==1.0\n")
    with pytest.raises(Rejected, match=r"No matching distribution found for only-arm"):
        install(tmp_path / "requirements.txt", tmp_path / "target", "3.12", "x86_64")


def test_what_aws_has_not_is_rejected_whole(tmp_path: Path) -> None:
    function = Function(handler="a.handler", timeout=0.5, memory=64, architecture="riscv", ephemeral_storage=100)
    with pytest.raises(Rejected) as caught:
        desired(function, Options(), "role")
    for word in ("timeout = 0.5", "memory = 64", "'riscv'", "ephemeral_storage = 100"):
        assert word in str(caught.value)


def test_an_empty_or_missing_folder_is_rejected_with_its_name(tmp_path: Path) -> None:
    for path, word in ((tmp_path, "holds no file"), (tmp_path / "none", "there is no such folder")):
        function = Function(handler="a.handler", code=path)
        with pytest.raises(Rejected, match=word):
            function_code.build(function, desired(function, Options(), "role"))


def test_no_secret_of_the_code_folder_reaches_the_zip(tmp_path: Path) -> None:
    source = folder(tmp_path / "src", a_py="1")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.txt").write_text("SECRET")
    (source / "linked").symlink_to(tmp_path / "outside")
    for name in (".env", ".git/config", ".aws/credentials", "server.pem", "id_rsa"):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text("SECRET")
    assert names(archive.build([source], {})) == ["a.py"]


def test_links_in_a_circle_and_pipes_end_the_packing_no_later(tmp_path: Path) -> None:
    source = folder(tmp_path / "src", a_py="1")
    (source / "here").symlink_to(".")
    (source / "there").symlink_to(".")
    os.mkfifo(source / "pipe")
    assert names(archive.build([source], {})) == ["a.py"]


def test_what_of_the_code_folder_is_left_out_is_said_and_what_pip_installed_is_packed_whole(tmp_path: Path) -> None:
    source, installed = folder(tmp_path / "src", a_py="1"), folder(tmp_path / "installed", b_py="1")
    (source / ".env").write_text("SECRET")
    (installed / "roots.pem").write_text("public")
    built = archive.build([source, installed], {})
    assert names(built) == ["a.py", "b.py", "roots.pem"]
    assert built.note.startswith("Left out of the code: .env. ")
