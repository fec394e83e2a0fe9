import json

import pytest

from htcgrid.runtime.context import client_context
from htcgrid.spi import Lease, Task


def context_of(given: str) -> str:
    return client_context(Lease(Task("t", b"{}", {"client_context": given})))


@pytest.mark.parametrize(
    "given",
    [
        '{"custom":\r\n{"a":\t"b"}\n}',
        '{"custom": {"a": "é\u2028\u0085\x7f😀"}}',
        '{"custom": {"\\r\\n": "\\u000d\\u000aX: y"}}',
        '{"custom": {"a": 1.50, "b": 12345678901234567890}}',
    ],
)
def test_a_callers_context_is_one_line_of_ascii_and_says_the_same(given: str) -> None:
    context = context_of(given)
    assert context.isascii()
    assert context.isprintable()
    assert json.loads(context) == json.loads(given)


def test_a_context_that_is_not_json_ends_no_header() -> None:
    assert "\n" not in context_of("x\r\nContent-Length: 0\r\n\r\n\x0b\x0c\x00")
    assert context_of("x\x00").isprintable()
