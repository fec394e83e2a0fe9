import codecs
import io
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]
import pytest
from htcgrid.planes import code_archive
from htcgrid.spi import Function, Rejected
from moto_aws import empty_aws

from htcgrid_eks import code
from htcgrid_eks.invoker import EksInvoker


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    (source / "models" / "__pycache__").mkdir(parents=True)
    (source / "models" / "heston.py").write_text("x = 1\n")
    (source / "models" / "__pycache__" / "heston.pyc").write_bytes(b"stale")
    (source / "bootstrap").write_text("#!/bin/sh\n")
    (source / "bootstrap").chmod(0o755)
    return source


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    with empty_aws() as url:
        for name, value in {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            monkeypatch.setenv(name, value)
        client = boto3.client("s3")
        yield client
        client.close()


def test_a_folder_arrives_as_it_was_with_modes_and_without_what_python_left(folder: Path, tmp_path: Path) -> None:
    code.unpack(code.pack(folder), tmp_path / "task")
    found = sorted(str(path.relative_to(tmp_path / "task")) for path in (tmp_path / "task").rglob("*"))
    assert found == ["bootstrap", "models", "models/heston.py"]
    assert (tmp_path / "task" / "bootstrap").stat().st_mode & 0o111
    assert (tmp_path / "task" / "models" / "heston.py").read_text() == "x = 1\n"


def test_layers_travel_beside_the_code_and_a_later_one_wins(folder: Path, tmp_path: Path) -> None:
    for name, files in {"first": ("shared", "both"), "second": ("both",)}.items():
        for file in files:
            path = tmp_path / name / "python" / f"{file}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"NAME = {name!r}")
    code.unpack(code.pack(folder, [tmp_path / "first", tmp_path / "second"]), tmp_path / "volume")
    assert (tmp_path / "volume/task/models/heston.py").read_text() == "x = 1\n"
    assert (tmp_path / "volume/task/bootstrap").stat().st_mode & 0o111
    texts = [(tmp_path / "volume/opt/python" / name).read_text() for name in ("shared.py", "both.py")]
    assert texts == ["NAME = 'first'", "NAME = 'second'"]


def test_a_layer_that_is_not_there_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(Rejected, match=r"\[function\] layers: there is no folder '.*nothing'"):
        code.pack(folder, [tmp_path / "nothing"])


def test_the_same_files_make_the_same_bytes(folder: Path) -> None:
    before = code.pack(folder)
    (folder / "bootstrap").touch()
    assert code.pack(folder) == before


def test_a_zip_on_s3_is_brought_by_its_address(s3: object, folder: Path) -> None:
    archive = code.pack(folder)
    s3.create_bucket(Bucket="code")  # type: ignore[attr-defined]
    s3.put_object(Bucket="code", Key="v1/pricing.zip", Body=archive)  # type: ignore[attr-defined]
    assert code.fetch("s3://code/v1/pricing.zip") == archive


def test_layers_on_s3_are_unpacked_beside_the_code_and_a_later_one_wins(
    s3: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.create_bucket(Bucket="code")
    s3.put_object(Bucket="code", Key="task.zip", Body=code.pack(folder))
    for name in ("first", "second"):
        (tmp_path / name / "python").mkdir(parents=True)
        (tmp_path / name / "python" / "both.py").write_text(f"NAME = {name!r}")
        (tmp_path / name / "python" / f"{name}.py").touch()
        s3.put_object(Bucket="code", Key=f"{name}.zip", Body=code.pack(tmp_path / name))
    volume = tmp_path / "volume"
    volume.mkdir()
    places = ["s3://code/task.zip", str(volume), "s3://code/first.zip", "s3://code/second.zip"]
    monkeypatch.setattr("sys.argv", ["code", *places])
    monkeypatch.setattr("signal.signal", lambda *_: None)
    code.main()
    assert (volume / "task/models/heston.py").read_text() == "x = 1\n"
    found = sorted(path.name for path in (volume / "opt/python").iterdir())
    assert found == ["both.py", "first.py", "second.py"]
    assert (volume / "opt/python/both.py").read_text() == "NAME = 'second'"


def test_nothing_is_unpacked_outside_the_folder(tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("../outside.py", "x = 1")
    code.unpack(packed.getvalue(), tmp_path / "task")
    assert not (tmp_path / "outside.py").exists()


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="there is no such folder"):
        code.pack(tmp_path / "nothing")


def test_no_secret_of_the_code_folder_reaches_a_pod(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "outside.txt").write_text("SECRET")
    (folder / "link.txt").symlink_to(tmp_path / "outside.txt")
    for name in (".env", ".git/config", ".aws/credentials", ".ssh/config", ".netrc", "server.pem"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("SECRET")
    assert zipfile.ZipFile(io.BytesIO(code.pack(folder))).namelist() == ["bootstrap", "models/heston.py"]


def test_the_workers_of_a_grid_with_its_code_on_s3_may_read_it(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr("htcgrid_eks.cluster.Cluster.open", lambda _cluster: None)
    config = EksInvoker.Config(image="i", namespace="grid", code="s3://code/v1/pricing.zip")
    policy: Any = EksInvoker(config, Function(handler="a.b", code=folder)).permissions()["agent"]
    (statement,) = policy["Statement"]
    assert (statement["Action"], statement["Resource"]) == (["s3:GetObject"], ["arn:aws:s3:::code/v1/pricing.zip"])
    config = config.model_copy(update={"layers": ("s3://code/layer.zip",)})
    policy = EksInvoker(config, Function(handler="a.b", code=folder)).permissions()["agent"]
    assert policy["Statement"][0]["Resource"] == ["arn:aws:s3:::code/v1/pricing.zip", "arn:aws:s3:::code/layer.zip"]


def read_only(**files: str) -> bytes:
    return code_archive.zipped({name: (text.encode(), 0o444) for name, text in files.items()})


@pytest.fixture
def volume() -> Iterator[Path]:
    """A folder that everybody may write into, for an ordinary user: root overwrites what is read-only."""
    volume = Path(tempfile.mkdtemp())
    volume.chmod(0o777)
    codecs.lookup("cp437")  # zip files need it, and an ordinary user may not read root's Python
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    yield volume
    if root:
        os.seteuid(0)
    shutil.rmtree(volume)


def test_an_init_container_that_is_started_again_unpacks_over_files_that_are_read_only(
    volume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code, "fetch", lambda _place: read_only(pricing="1"))
    monkeypatch.setattr("sys.argv", ["code", "s3://bucket/code.zip", str(volume)])
    monkeypatch.setattr("signal.signal", lambda *_: None)
    for _ in range(2):
        code.main()
    assert (volume / "pricing").read_text() == "1"
    assert (volume / "pricing").stat().st_mode & 0o777 == 0o444


def test_a_later_layer_wins_over_a_file_that_is_read_only(volume: Path) -> None:
    for text in ("first", "second"):
        code.unpack(read_only(shared=text), volume / "opt")
    assert (volume / "opt" / "shared").read_text() == "second"
