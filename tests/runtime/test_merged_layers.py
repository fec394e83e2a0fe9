"""All layers in one folder, which containers have as /opt."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from htcgrid.runtime import layers
from htcgrid.spi import Function, Rejected

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def opt(tmp_path: Path) -> Path:
    for name in ("first", "second", "opt"):
        (tmp_path / name / "python").mkdir(parents=True)
    return tmp_path / "opt"


def merged(opt: Path) -> None:
    folder = opt.parent
    layers.merge(Function(layers=(folder / "first", folder / "second")), opt)


def test_two_layers_may_have_the_same_link(opt: Path) -> None:
    for name in ("first", "second"):
        lib = opt.parent / name / "lib"
        lib.mkdir()
        (lib / "libz.so.1").write_text(name)
        (lib / "libz.so").symlink_to("libz.so.1")
    merged(opt)
    assert (opt / "lib" / "libz.so").readlink().name == "libz.so.1"
    assert (opt / "lib" / "libz.so").read_text() == "second"


def test_a_file_that_replaces_a_link_leaves_what_the_link_leads_to_alone(opt: Path) -> None:
    mine = opt.parent / "mine.py"
    mine.write_text("mine")
    (opt.parent / "first" / "python" / "shared.py").symlink_to(mine)
    (opt.parent / "second" / "python" / "shared.py").write_text("second")
    merged(opt)
    assert mine.read_text() == "mine"
    assert (opt / "python" / "shared.py").read_text() == "second"
    assert not (opt / "python" / "shared.py").is_symlink()


def test_a_folder_replaces_a_file_and_a_file_a_folder(opt: Path) -> None:
    (opt.parent / "first" / "python" / "a").write_text("file")
    (opt.parent / "first" / "python" / "b").mkdir()
    (opt.parent / "first" / "python" / "b" / "inside").write_text("file")
    (opt.parent / "second" / "python" / "a").mkdir()
    (opt.parent / "second" / "python" / "b").write_text("file")
    merged(opt)
    assert (opt / "python" / "a").is_dir()
    assert (opt / "python" / "b").is_file()


def test_a_pipe_in_a_layer_is_left_out(opt: Path) -> None:
    os.mkfifo(opt.parent / "first" / "python" / "pipe")
    (opt.parent / "first" / "tool").write_text("x")
    (opt.parent / "first" / "tool").chmod(0o755)
    merged(opt)
    assert not (opt / "python" / "pipe").exists()
    assert os.access(opt / "tool", os.X_OK)


def test_a_file_that_cannot_be_copied_is_named(opt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (opt.parent / "first" / "python" / "shared.py").write_text("x")

    def full(source: Path, _target: Path, **_: object) -> None:
        raise OSError(28, "No space left on device", str(source))

    monkeypatch.setattr("shutil.copy2", full)
    with pytest.raises(Rejected, match=r"\[function\] layers: .*shared\.py cannot be copied: No space left"):
        merged(opt)
