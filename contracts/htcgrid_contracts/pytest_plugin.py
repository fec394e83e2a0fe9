"""The pytest plugin: known gaps of a contract are expected failures that must fail."""

import pytest


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark the rules that `known_gaps` names."""
    gaps = getattr(getattr(item, "cls", None), "known_gaps", None)
    if gaps:
        name = getattr(item, "originalname", item.name)
        reason = gaps.get(item.name) or gaps.get(name)
        if reason:
            item.add_marker(pytest.mark.xfail(strict=True, reason=reason))
