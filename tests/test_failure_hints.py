"""A failure whose cause is where the handler runs says what to do about it."""

from __future__ import annotations

import pytest

from htcgrid.failures.hints import hint


@pytest.mark.parametrize(
    ("error_type", "message", "says"),
    [
        ("Runtime.ImportModuleError", "Unable to import module 'work': No module named 'boto3'", "htcgrid[boto3]"),
        ("ModuleNotFoundError", "No module named 'pandas.core'", "pandas.core is not installed where the handler runs"),
        ("NoCredentialsError", "Unable to locate credentials", "credentials ="),
        ("CredentialsProviderError", "Could not load credentials from any providers", "credentials ="),
        ("ValueError", "no such price", ""),
    ],
)
def test_a_hint_is_given_where_the_place_is_at_fault_and_only_there(error_type: str, message: str, says: str) -> None:
    found = hint(error_type, message)
    assert says in found
    assert bool(found) == bool(says)
