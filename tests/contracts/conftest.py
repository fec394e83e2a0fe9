import pytest

LONGEST = {"test_broken.py", "test_clean_install.py", "test_new_plugin.py", "test_verify.py"}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: builds, installs and verifies distributions")


def pytest_pycollect_makeitem(collector: pytest.Collector, name: str) -> list[pytest.Item] | None:
    """Of a broken plugin, ask only the rule that it breaks."""
    breaks = getattr(getattr(collector, "cls", None), "breaks", "")
    return [] if breaks and name.startswith("test_") and name != breaks else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take minutes come first, so that none is left alone at the end of a run of several processes."""
    items.sort(key=lambda item: item.path.name not in LONGEST)
