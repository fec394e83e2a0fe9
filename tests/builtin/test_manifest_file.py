"""The manifests of runs, in a file beside the results."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from htcgrid.builtin import manifest_file

if TYPE_CHECKING:
    from pathlib import Path

FIRST, SECOND = b'{"command":"run"}', b'{"command":"redrive"}'
TOO_LITTLE = """
import resource, signal
from pathlib import Path
from htcgrid.builtin import manifest_file
from htcgrid.spi import Unavailable
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10, resource.RLIM_INFINITY))
try:
    manifest_file.add(Path({results!r}), {document!r})
except Unavailable as error:
    print(error)
"""


def test_a_manifest_that_was_written_in_part_is_reported_and_the_next_one_is_whole(tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    script = TOO_LITTLE.format(results=str(results), document=FIRST)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == f"{results}.manifest.jsonl: only 10 of 18 bytes could be written; the disk may be full\n"
    manifest_file.add(results, SECOND)
    manifest_file.add(results, FIRST)
    assert list(manifest_file.lines(results))[1:] == [SECOND, FIRST]
