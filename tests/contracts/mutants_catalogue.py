"""The bugs: those of sources, sinks and planes in files of their own, and why some of them survive."""

from __future__ import annotations

from collections.abc import Mapping

from mutants_planes import PLANES
from mutants_sinks import SINKS
from mutants_sources import SOURCES
from mutants_together import TOGETHER

CATALOGUE = (*SOURCES, *SINKS, *PLANES, *TOGETHER)

_IT_ENDS = "the source that is tested ends: where all of its tasks are leased it returns at once, and nothing comes to wait for"

SURVIVORS: Mapping[tuple[str, str], str] = {
    (
        "process",
        "the memory's limit is half",
    ): "no bug that shows: this check is asked once the memory's watch, which has the limit itself, has seen it passed",
    ("memory source", "receive waits half"): _IT_ENDS,
    (
        "redis sink",
        "answers are cut at a megabyte",
    ): "max_bytes is 300,000 in its tests, so that no such answer is stored",
    (
        "jsonl sink",
        "line breaks in an answer break the line",
    ): "a known gap: a line break in an answer is stored as a space",
}
"""Why a mutant, by plugin and name, is not caught."""
