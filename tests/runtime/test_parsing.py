"""What others sent is read with one kind of error, however it is nested."""

import pytest

from htcgrid.runtime.api import _error_document
from htcgrid.runtime.parsing import parsed
from htcgrid.runtime.rie_answers import classify

DEEP = b'{"cause":' * 100_000 + b"1" + b"}" * 100_000


@pytest.mark.parametrize("document", [DEEP, DEEP.decode(), b"[" * 100_000, b"{", b"\xff", ""])
def test_what_cannot_be_read_is_a_value_error(document: bytes | str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each says something else
        parsed(document)


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity", '{"a": [NaN]}'])
def test_what_only_python_takes_for_json_is_refused_where_asked_for(constant: str) -> None:
    parsed(constant)
    with pytest.raises(ValueError, match="is not JSON"):
        parsed(constant, strict=True)


def test_a_number_past_a_floats_range_is_json() -> None:
    assert parsed("1e999", strict=True) == float("inf")


def test_a_deeply_nested_error_document_is_kept_as_text() -> None:
    kept = _error_document(b"Deep", DEEP)
    assert b'"errorType":"Deep"' in kept
    assert parsed(kept)["errorMessage"] == DEEP.decode()


def test_a_deeply_nested_answer_of_the_emulator_is_an_answer() -> None:
    body = b'{"errorType":"a","cause":' + DEEP + b"}"
    assert classify(200, body, "id", 1.0) == (None, body)
