"""From a code folder to a container image: the Dockerfile, the build context, the build."""

import io
import json
import re
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from docker.utils.build import PatternMatcher
from htcgrid.planes import collect, layers
from htcgrid.spi import Function, Rejected

from htcgrid_local_docker.container_spec import LAYERS, TASK_ROOT
from htcgrid_local_docker.diagnosis import CLIENTS
from htcgrid_local_docker.engine import Engine, explained
from htcgrid_local_docker.images import Image

_CODE, _WHEELS, LAYERS_IN_CONTEXT = ".htcgrid-code", ".htcgrid-wheels", ".htcgrid-layers"
"""Folders of the build context. The code has its own folder where others are beside it, so that only the code is copied to the task root."""
_DOCKERFILE = "Dockerfile"
_PYTHONPATH = "/opt/python"


def dockerfile(function: Function, base: Image, wheels: Path | None) -> str:
    """The Dockerfile of a function: its requirements, its layers, its code, its handler, upon `base`."""
    if wheels is not None and not any(wheels.glob("*.whl")):
        raise Rejected(f"There are no wheels in {wheels}. Collect them: pip download -r requirements.txt -d {wheels}")
    lines = [f"FROM {base.reference}", f"WORKDIR {TASK_ROOT}"]
    has_client = CLIENTS.search(" ".join(base.entrypoint)) is not None
    code = "" if wheels is None and not function.layers else f"{_CODE}/"
    wanted = [] if has_client else ["awslambdaric"]
    if (function.code / "requirements.txt").is_file():
        lines += [f"COPY {code}requirements.txt ./"]
        wanted += ["-r", "requirements.txt"]
    source = ""
    if wheels is not None:
        lines += [f"COPY {_WHEELS} /tmp/wheels"]
        source = "--no-index --find-links /tmp/wheels "
    if wanted:
        lines += [f"RUN python3 -m pip install --no-cache-dir {source}--target {TASK_ROOT} {' '.join(wanted)}"]
    if function.layers:
        lines += [f"COPY {LAYERS_IN_CONTEXT} {LAYERS}"]
        lines += [] if has_client else [f"ENV PYTHONPATH={_PYTHONPATH}"]  # AWS's images look there by themselves
    lines += [f"COPY {code or '.'} ./"]
    if not has_client:
        lines += ['ENTRYPOINT ["python3", "-m", "awslambdaric"]']
    if function.handler:
        lines += [f"CMD {json.dumps([function.handler])}"]
    return "\n".join(lines) + "\n"


def build(engine: Engine, function: Function, tag: str, text: str, wheels: Path | None) -> Iterator[str]:
    """Build the image `tag`; yields what the engine says. Raises `Rejected` with the step that failed."""
    with tempfile.TemporaryFile() as context:
        _pack(context, function, text, wheels)
        context.seek(0)
        image = ""
        with engine.speaking(f"build the image {tag!r}"):
            for event in engine.client.build(
                fileobj=context, custom_context=True, tag=tag, rm=True, forcerm=True, decode=True
            ):
                if "error" in event:
                    raise _failed(str(event["error"]), tag, wheels)
                image = (event.get("aux") or {}).get("ID", image)
                if line := event.get("stream", "").rstrip():
                    yield line
    yield f'built {tag} ({image[:19]}). Run it with image = "{tag}" in place of base_image.'


def _failed(error: str, tag: str, wheels: Path | None) -> Exception:
    if re.search(r"pip install.*non-zero code", error):
        advice = (
            "The lines above say what pip lacked. Where builds reach no package index, collect the wheels first: "
            "pip download -r requirements.txt -d wheels, then htcgrid build --wheels wheels."
            if wheels is None
            else f"The lines above say what is missing in {wheels}."
        )
        return Rejected(f"The image {tag!r} was not built: {error}. {advice}")
    return explained(error.rstrip("."), f"build the image {tag!r}")


def _pack(context: IO[bytes], function: Function, text: str, wheels: Path | None) -> None:
    """The files of the code folder, less what .dockerignore names besides, those of the layers, and the Dockerfile."""
    code = function.code.resolve()
    ignore = code / ".dockerignore"
    lines = _text(ignore).split("\n") if ignore.is_file() else []
    patterns = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    left_out = PatternMatcher([*patterns, _DOCKERFILE])
    place = f"{_CODE}/" if _CODE in text else ""
    files = {f"{place}{file.name}": file for file in collect(code).files if not left_out.matches(file.name)}
    for layer in function.layers:  # the last one that has a file wins
        files |= {f"{LAYERS_IN_CONTEXT}/{file.name}": file for file in collect(layer).files}
    with tarfile.open(fileobj=context, mode="w") as archive:
        for name, file in files.items():
            entry = tarfile.TarInfo(name)
            content = file.read()
            entry.size, entry.mode, entry.mtime = len(content), file.mode, int(file.path.stat().st_mtime)
            archive.addfile(entry, io.BytesIO(content))
        content = text.encode()
        entry = tarfile.TarInfo(_DOCKERFILE)
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
        for wheel in sorted(wheels.glob("*.whl")) if wheels is not None else ():
            archive.add(wheel, f"{_WHEELS}/{wheel.name}", filter=_readable)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise Rejected(f"{path} cannot be read: {error}. It must be text in UTF-8.") from None


def _readable(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.mode |= 0o555 if entry.isdir() or entry.mode & 0o100 else 0o444
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


def written(function: Function, base: Callable[[], Image], wheels: Path | None) -> tuple[str, bool]:
    """The Dockerfile to use, and whether it is the user's own."""
    layers.check(function.layers)
    own = function.code / _DOCKERFILE
    if own.is_file():
        text = _text(own)
        if function.layers and LAYERS_IN_CONTEXT not in text:
            raise Rejected(
                f"{own} is used as it is, and does not copy [function] layers. Add this line to it: "
                f"COPY {LAYERS_IN_CONTEXT} {LAYERS} (or build without them: --set function.layers=[])."
            )
        return text, True
    return dockerfile(function, base(), wheels), False
