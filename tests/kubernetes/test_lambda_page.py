"""Every pipes of eks in docs/lambda.md is held by a test of this folder."""

from htcgrid_contracts import InvokerContract
from parity_sides import is_compared, rows

CONTRACT = {
    "a_dict_that_looks_like_an_error_document": "test_a_document_that_looks_like_an_error_is_an_answer",
    "test_timeouts_as_on_the_emulator": "test_a_handler_past_its_timeout_is_stopped",
    "test_after_a_timeout": "test_a_handler_past_its_timeout_is_stopped",
    "test_a_handler_past_its_memory": "test_a_handler_past_its_memory_is_stopped",
    "test_an_event_past_the_limit": "test_an_event_past_the_limit_is_too_large",
    "test_an_init_error_is_reported_at_once": "test_a_handler_that_cannot_be_loaded_is_an_init_error",
    "test_a_cancelled_task_is_stopped": "test_cancel_stops_a_running_handler",
    "test_the_handler_is_told_of_its_task": "test_the_context_tells_task_session_attempt_and_attributes",
    "test_the_trace_of_the_caller": "test_the_trace_of_the_caller_is_passed_on",
    "test_time_and_memory_are_measured": "test_times_and_memory_are_measured",
}
"""By a part of the name of a row's test: the rule of the conformance kit that test_eks_contract.py holds in pods."""


def test_every_cell_of_the_page_is_held_by_a_test() -> None:
    named = list(rows("eks"))
    assert len(named) > 30
    assert [test for test in named if not is_held(test)] == []


def is_held(test: str) -> bool:
    compared = is_compared(test)
    if compared is not None:
        return compared
    rules = [rule for part, rule in CONTRACT.items() if part in test]
    return len(rules) == 1 and hasattr(InvokerContract, rules[0])
