"""Every key with everything that a user may write: refused with a sentence, or it works."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import odd_values
import pytest
from htcgrid_aws.sqs import SqsSource
from pydantic import ValidationError


@pytest.mark.parametrize(
    ("table", "beside", "key"), list(odd_values.keys_of("htcgrid-aws")), ids=lambda part: str(part)[:40]
)
def test_every_key_takes_or_refuses_with_a_sentence(
    table: str, beside: dict[str, Any], key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    odd_values.check(table, beside, key)


@pytest.mark.parametrize("url", ["https://user:pass@sqs.example.com", "https://user:pa/ss@host", "user:pass@host:443"])
def test_an_address_with_a_password_is_refused(url: str) -> None:
    """Messages show the address."""
    with pytest.raises(ValidationError, match="an address without a user and a password"):
        SqsSource.Config(queue="tasks", endpoint_url=url)
