"""The bugs: those of sources, sinks and planes in files of their own, and why some of them survive."""

from __future__ import annotations

from collections.abc import Mapping

from mutants_blind import BLIND
from mutants_clocks import CLOCKS
from mutants_details import DETAILS
from mutants_fresh import FRESH
from mutants_later import LATER
from mutants_plane_details import PLANE_DETAILS
from mutants_planes import PLANES
from mutants_sinks import SINKS
from mutants_sources import SOURCES
from mutants_together import TOGETHER

CATALOGUE = (*SOURCES, *SINKS, *PLANES, *TOGETHER, *CLOCKS, *DETAILS, *PLANE_DETAILS, *FRESH, *LATER, *BLIND)

SURVIVORS: Mapping[tuple[str, str], str] = {
    (
        "process",
        "the memory's limit is half",
    ): "no bug that shows: this check is asked once the memory's watch, which has the limit itself, has seen it passed",
    (
        "sqlite sink",
        "agents that begin at once make the table twice",
    ): "a race: four agents that open a new place together do not always meet in it",
    (
        "sqlite source",
        "a return with a delay is not seen by who waits already",
    ): "no bug that shows: a receive that waits also looks by itself, a few times in a second",
    (
        "sqlite source",
        "put revives a dead letter",
    ): "allowed where a dead letter is kept in another place than the queue, as with SQS: the id is free again",
    (
        "sqlite sink",
        "failures are counted up to a hundred",
    ): "more than a hundred failures of one kind would cost every sink seconds",
    (
        "sqlite source",
        "a file that was removed while in use is not noticed",
    ): "the kit does not know where a place is: tests/test_sqlite_file.py asks it",
    (
        "process",
        "what was printed during the initialisation is in the log of each later task",
    ): "what a module prints is read before its start has ended only where the environment is looked at then, for its memory",
    (
        "process",
        "a fork server that was killed is not replaced",
    ): "the kit does not know the programs of a plane: tests/builtin/test_process.py kills them",
    (
        "process",
        "Unavailable does not name the task that ran when the fork server ended",
    ): "as above",
    (
        "dynamodb",
        "keys that DynamoDB has left unprocessed are not asked for again",
    ): "moto leaves none: plugins/aws/tests/test_sinks.py answers in its place",
    (
        "dynamodb",
        "a page without a failure is taken for the end of the table",
    ): "moto cuts pages after it has filtered: plugins/aws/tests/test_sinks.py answers in its place",
    (
        "process",
        "init_ms is in seconds",
    ): "where the module is shared by all environments, a start takes a part of a millisecond",
    (
        "process",
        "the duration of a first call has its start in it",
    ): "on a busy machine the first call of a good plane is late by as much",
}
"""Why a mutant, by plugin and name, is not caught."""
