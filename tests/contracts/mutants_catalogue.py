"""The bugs: those of sources, sinks and planes in files of their own, and why some of them survive."""

from __future__ import annotations

from collections.abc import Mapping

from mutants_clocks import CLOCKS
from mutants_details import DETAILS
from mutants_fresh import FRESH
from mutants_later import LATER
from mutants_plane_details import PLANE_DETAILS
from mutants_planes import PLANES
from mutants_sinks import SINKS
from mutants_sources import SOURCES
from mutants_together import TOGETHER

CATALOGUE = (*SOURCES, *SINKS, *PLANES, *TOGETHER, *CLOCKS, *DETAILS, *PLANE_DETAILS, *FRESH, *LATER)

SURVIVORS: Mapping[tuple[str, str], str] = {
    (
        "process",
        "the memory's limit is half",
    ): "no bug that shows: this check is asked once the memory's watch, which has the limit itself, has seen it passed",
    (
        "sqlite sink",
        "agents that begin at once make the table twice",
    ): "a race: four agents that open a new place together do not always meet in it",
}
"""Why a mutant, by plugin and name, is not caught."""
