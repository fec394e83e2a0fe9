import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: builds, installs and verifies distributions")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of a broken plugin, ask only the rule that it breaks."""
    others = [
        item for item in items if (getattr(getattr(item, "cls", None), "breaks", "") or _rule(item)) != _rule(item)
    ]
    config.hook.pytest_deselected(items=others)
    items[:] = [item for item in items if item not in others]


def _rule(item: pytest.Item) -> str:
    return getattr(item, "originalname", item.name)
