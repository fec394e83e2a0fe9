"""Every cell of local_docker in docs/lambda.md is held by a test of this folder."""

import test_contract
from parity_sides import is_compared, rows

CONTRACT = {
    "runtime/test_transports.py::test_a_dict_that_looks_like_an_error_document_is_an_answer_but_on_rie": (
        "test_a_document_that_looks_like_an_error_is_an_answer"
    ),
    "parity/test_parity.py::test_timeouts_as_on_the_emulator": "test_a_handler_past_its_timeout_is_stopped",
    "runtime/test_transports.py::test_after_a_timeout_a_hundred_calls_succeed": (
        "test_a_handler_past_its_timeout_is_stopped"
    ),
    "runtime/test_transports.py::test_a_handler_past_its_memory_is_stopped": (
        "test_a_handler_past_its_memory_is_stopped"
    ),
    "runtime/test_transports.py::test_an_event_past_the_limit_is_refused_before_it_is_sent": (
        "test_an_event_past_the_limit_is_too_large"
    ),
    "runtime/test_transports.py::test_an_init_error_is_reported_at_once": (
        "test_a_handler_that_cannot_be_loaded_is_an_init_error"
    ),
    "runtime/test_transports.py::test_a_cancelled_task_is_stopped": "test_cancel_stops_a_running_handler",
    "runtime/test_languages.py::test_the_handler_is_told_of_its_task": (
        "test_the_context_tells_task_session_attempt_and_attributes"
    ),
    "runtime/test_trace.py::test_the_trace_of_the_caller_is_passed_on_and_holds_for_that_invocation_alone": (
        "test_the_trace_of_the_caller_is_passed_on"
    ),
    "runtime/test_languages.py::test_time_and_memory_are_measured": "test_times_and_memory_are_measured",
}
"""The rule of the contract that holds in a container what the test of a row holds on the process plane."""


def test_every_cell_of_the_page_is_held_by_a_test() -> None:
    named = list(rows("local_docker"))
    assert len(named) > 30
    assert [test for test in named if not is_held(test)] == []


def is_held(test: str) -> bool:
    compared = is_compared(test)
    return compared if compared is not None else hasattr(test_contract.TestPython, CONTRACT[test])
