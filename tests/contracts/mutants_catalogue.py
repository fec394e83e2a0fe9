"""The bugs: those of sources, sinks and planes in files of their own, and why some of them survive."""

from __future__ import annotations

from collections.abc import Mapping

from mutants_planes import PLANES
from mutants_sinks import SINKS
from mutants_sources import SOURCES

CATALOGUE = (*SOURCES, *SINKS, *PLANES)

SURVIVORS: Mapping[tuple[str, str], str] = {}
"""Why a mutant, by plugin and name, is not caught."""
