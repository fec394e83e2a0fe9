import pytest

from htcgrid_aws_lambda.answers import _document
from htcgrid_aws_lambda.report_lines import _platform_record

DEEP = b"[" * 200_000 + b"]" * 200_000


@pytest.mark.parametrize("payload", [DEEP, b"\xff\xfe", b"NaN", b"", b"[1]"])
def test_an_answer_that_is_not_an_error_document_is_no_bug(payload: bytes) -> None:
    assert _document(payload) == {}
    assert _platform_record(payload) is None
