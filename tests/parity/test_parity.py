"""Each behaviour on AWS's emulator with AWS's client, and on the process plane by socket and by HTTP.

What differs must stand in differences.toml with its reason.
"""

import json
import shutil
import tomllib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import pytest

HERE = Path(__file__).parent
TIMEOUT = 10
DIFFERENCES = tomllib.loads((HERE / "differences.toml").read_text())

VALUES = {
    "null": None,
    "true": True,
    "integer": 7,
    "large_integer": 2**70,
    "negative_zero": -0.0,
    "float": 0.1,
    "exponent": 1e300,
    "text": "abc",
    "empty_text": "",
    "text_beyond_ascii": "Zoë € 𝄞 \u2028",
    "escapes": 'a"b\\c\n\t\u0000/</script>',
    "list": [1, [2, [3]], []],
    "object": {"b": 1, "a": {"c": None}, "": 0},
    "empty_object": {},
}
FUNCTIONS = """
a_tuple a_decimal not_a_number bytes_of_json bytes_of_text bytes_that_are_no_text mixed_keys a_set a_generator
a_coroutine a_date a_uuid a_circle a_lone_surrogate a_tuple_as_key looks_like_an_error looks_like_a_timeout
raises raises_without_text raises_beyond_ascii raises_of_two_arguments raises_from_a_cause raises_a_key_error recurses
asserts raises_an_exception_group raises_multi_line
exits_without_status exits_with_0 exits_with_3 exits_with_text ends_with_0 ends_with_255 is_killed is_terminated
segfaults aborts hangs_up interrupts
request_id function memory log_names remaining identity client_context tenant shown logs_by_context
time_of_the_deadline
where input_is_empty timezone encodings runs_a_program pipes_are_plain is_main_thread signals
prints prints_errors logs logs_an_exception writes_to_the_descriptor prints_json
"""
VARIABLES = """
_HANDLER AWS_REGION AWS_DEFAULT_REGION AWS_EXECUTION_ENV AWS_LAMBDA_FUNCTION_NAME AWS_LAMBDA_FUNCTION_VERSION
AWS_LAMBDA_FUNCTION_MEMORY_SIZE AWS_LAMBDA_INITIALIZATION_TYPE AWS_LAMBDA_LOG_GROUP_NAME LANG TZ LAMBDA_TASK_ROOT
AWS_ACCESS_KEY_ID AWS_SESSION_TOKEN
"""
LIMIT = 6_291_556
TWICE = ("counts", "keeps_a_variable", "works_on_in_a_thread", "keeps_a_file")
BEHAVIOURS: dict[str, list[Any]] = {
    **{f"answers_{name}": [{"do": "echo", "value": value}] for name, value in VALUES.items()},
    **{f"event_{name}": [value] for name, value in VALUES.items()},
    "event_that_is_no_json": [b"{broken"],
    "event_that_is_no_text": [b'"\xff\xfe"'],
    "event_that_is_empty": [b""],
    "event_with_a_byte_order_mark": [b"\xef\xbb\xbf1"],
    "event_with_a_key_twice": [b'{"a": 1, "a": 2}'],
    "event_with_not_a_number": [b"[NaN, Infinity]"],
    "event_with_a_decimal": [b"[1.10, 1e2, 12345678901234567890.123456789]"],
    "event_with_space_around": [b" \n {} \n "],
    "event_of_one_megabyte": [{"do": "length", "text": "x" * (1 << 20)}],
    **{name: [{"do": name, "timeout": TIMEOUT}] for name in FUNCTIONS.split()},
    **{name: [{"do": "exits_with_0"}, {"do": name}, {"do": name}] for name in TWICE},
    "fresh_after_an_exit": [{"do": "counts"}, {"do": "ends_with_255"}, {"do": "counts"}],
    "same_after_an_error": [{"do": "exits_with_0"}, {"do": "counts"}, {"do": "raises"}, {"do": "counts"}],
    **{f"variable_{name}": [{"do": "variable", "name": name}] for name in VARIABLES.split()},
    "answer_of_one_megabyte": [{"do": "a_large_answer", "size": 1 << 20}],
    "answer_as_large_as_can_be": [{"do": "a_large_answer", "size": LIMIT - 2}],
    "answer_too_large": [{"do": "a_large_answer", "size": LIMIT - 1}],
    "fresh_after_an_answer_too_large": [{"do": "a_large_answer", "size": LIMIT - 1}, {"do": "echo", "value": 1}],
}
INITS = {
    "module_that_is_missing": "no_such_module.handler",
    "function_that_is_missing": "prints.no_such_function",
    "handler_without_a_dot": "handler",
    "module_that_raises": "raises.handler",
    "module_that_imports_what_is_missing": "imports_what_is_missing.handler",
    "module_with_wrong_syntax": "wrong_syntax.handler",
    "module_that_exits": "exits.handler",
    "module_that_ends": "ends.handler",
    "module_of_pythons_own": "sys.exit",
    "module_that_prints": "prints.handler",
    "module_in_a_package": "package.deep.handler",
    "module_by_its_path": "package/deep.handler",
    "handler_of_a_class": "package.deep.Handlers.handler",
}


def compare(behaviour: str, found: Any, events: list[Any]) -> None:
    """Each event in turn, on each side by itself."""
    calls = [
        (
            str(uuid5(UUID(int=0), f"{behaviour} {number}")),
            event if isinstance(event, bytes) else json.dumps(event).encode(),
        )
        for number, event in enumerate(events)
    ]

    def run(plane: Any) -> Any:
        return [plane.invoke(payload, request_id) for request_id, payload in calls]

    with ThreadPoolExecutor() as threads:
        ours = dict(zip(found.planes, threads.map(run, found.planes.values()), strict=True))
    http = ours["http"]
    emulator = [
        found.oracle.invoke(payload, request_id, seen.log)
        for (request_id, payload), seen in zip(calls, http, strict=True)
    ]
    for side, seen, like in (
        ("emulator", emulator, [replace(each, kind="") for each in http]),
        ("socket", ours["socket"], http),
        ("rie", [replace(each, log="") for each in ours["rie"]], [replace(each, log="") for each in http]),
    ):
        if behaviour in DIFFERENCES[side]:
            assert seen != like, f"differences.toml has {behaviour} for {side}, and nothing differs"
        else:
            assert seen == like, f"{side} and http differ"


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_as_on_the_emulator(behaviour: str, start: Callable[..., Any]) -> None:
    compare(behaviour, start(HERE, "handlers.handler", TIMEOUT), BEHAVIOURS[behaviour])


def test_timeouts_as_on_the_emulator(start: Callable[..., Any]) -> None:
    found = start(HERE, "handlers.handler", 3)  # seconds: the emulator counts the start after a timeout in
    compare("timeout", found, [{"do": "counts"}, {"do": "sleeps", "seconds": 30}, {"do": "counts"}])


@pytest.fixture(scope="session")
def inits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    code = tmp_path_factory.mktemp("inits") / "code"
    shutil.copytree(HERE / "inits", code)
    (code / "wrong_syntax.py").write_text("def handler(event, context)\n    return 1\n")
    return code


@pytest.mark.parametrize("behaviour", INITS)
def test_initialising_as_on_the_emulator(behaviour: str, start: Callable[..., Any], inits: Path) -> None:
    compare(behaviour, start(inits, INITS[behaviour], TIMEOUT), [{}])


def test_each_difference_has_its_reason() -> None:
    known = {*BEHAVIOURS, *INITS, "timeout"}
    assert len(known) >= 40
    for differences in DIFFERENCES.values():
        assert differences.keys() <= known
        assert all(differences.values())
