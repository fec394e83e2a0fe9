"""A pytest plugin: the rules that a mutant is likely to break are asked first, and of these the quick ones, so that most
are caught within seconds."""

import json
import os
import re
from pathlib import Path

import pytest

LIKELY = {
    "source: only a part of a batch": "extend_says|every_task|batch|every_lease|many|dead_letter|redriven|cancel|full|several_large",
    "source: seconds": "extend_keeps|delay_is_kept|lasts_as_long|returned_task_with_a_delay|long_times",
    "source: waits": "wait|at_once|as_soon|may_be_long",
    "source: errors": "unavailable|came_back|refused",
    "source: leases": "late_call|attempt|lost|second|lapsed|close|dead_letter_as_it_is|stays_so|not_ours|comes_and_goes|leased_task",
    "source: what arrives": "payload|attributes|put_keeps|go_on_counting|several_large|any_text|no_task|all_that_is_known|redriven|types_of",
    "source: put, cancel, redrive": "put|cancel|redriven|more_tasks|its_priority|generations_of",
    "source: counts and dead letters": "state|dead|pending|looking|depth|oldest|agent_by|any_reason|empty|than_a_page",
    "source: clocks": "part_of_a_second|time_zones|lease_is_over|oldest",
    "source: pages, ids, priorities, generations": "page|many|with_their_session|ids_as_they|put_|priorit|generation|cut_off|came_back",
    "sink: numbers and what changes": "large_numbers|zero|generations|follow|one_failure|rate",
    "plane: behind an engine's queue": "waits_for_a_slot|any_id|slow_outcome",
    "source: the end": "exhausted|the_end|many",
    "source: beside other agents and commands": "side_by|another|others|other_agent|at_once|wait|cancel|dead|state|pending|submitters|new_place|each_other",
    "source: odd but allowed": "cancel|session|redriven|nothing_in_it|full_batch|priority",
    "any: resources and secrets": "close|secret|unavailable|reading|reader|usage|stats",
    "sink: what is stored": "stored|facts|get_returns|ids_that|large|failed_lists|get_returns|any_text",
    "sink: once, and for good": "outlives|twice|again|threads|close_and_open",
    "sink: what is read": "side_by|empty|stored_|get_|scan|read_beside|several_large|told|types_of|generations_of|each_task_once",
    "sink: generations": "generation",
    "sink: counts and failures": "empty|stats|failed|ran|every_run|returns_all|generation|differ",
    "sink: errors": "unavailable|too_large|not_there|close|any_text|came_back",
    "sink: beside other agents and commands": "another|same_time|beside|stats|wait|every_result|at_once|reader|told|holds_up|replaced|any_thread|generation",
    "sink: odd but allowed": "ids_that|session|get_|stored_|nothing_in_it|full_batch|scan",
    "plane: answers and events": "comes_back|answer|limit|event|any_json|reported_once",
    "plane: timeouts and ends": "neither|of_its_own|time_that|at_once|memory_limit|exit|month|child|run_on|are_ready",
    "plane: kinds of failure": "error|exit|stopped|looks_like|one_execution|cancel|comes_again",
    "plane: batches and slots": "batch|slot|behind|given_up|same_time|reported_once|stopped|cannot_be_loaded|are_ready",
    "plane: context": "context|shadows|request_id|attributes|lambda|caller|not_ascii",
    "plane: odd but allowed": "any_id|attributes|context",
    "plane: logs": "log|bytes",
    "plane: output": "handed_over",
    "plane: metering": "bill|measured|started|plausible|megabytes|name_of_its_own|init_ms|measured|billed|types_of|handed_over",
    "plane: cancel": "cancel",
    "plane: open, close, neighbours": "close|neighbour|open_twice|observers|stops_every",
}
HANGS = 20
"""Seconds, above four times what a rule takes, after which it hangs."""
KIND = "HTCGRID_MUTANT_KIND"
SECONDS = "HTCGRID_MUTANT_SECONDS"
"""A file with the seconds that each rule takes where none is broken. The run of the plugin without a bug writes it."""
UNCHANGED = "-"
"""The kind of a plugin without a bug."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    likely = re.compile(LIKELY.get(os.environ.get(KIND, ""), "$^"))
    file = Path(os.environ[SECONDS])
    seconds = json.loads(file.read_text()) if file.exists() else {}
    items.sort(key=lambda item: (likely.search(item.name) is None, seconds.get(item.nodeid, 0.0)))
    for item in items:
        if item.nodeid in seconds:  # one that hangs need not be waited for as long as the slowest rule
            item.add_marker(pytest.mark.timeout(HANGS + 4 * seconds[item.nodeid]))


class Clock:
    """Writes how long each rule took."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._seconds: dict[str, float] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._seconds[report.nodeid] = self._seconds.get(report.nodeid, 0.0) + report.duration

    def pytest_sessionfinish(self) -> None:
        part = self._file.with_suffix(".part")
        part.write_text(json.dumps(self._seconds), encoding="utf-8")
        part.replace(self._file)


def pytest_configure(config: pytest.Config) -> None:
    if os.environ[KIND] == UNCHANGED:
        config.pluginmanager.register(Clock(Path(os.environ[SECONDS])))
