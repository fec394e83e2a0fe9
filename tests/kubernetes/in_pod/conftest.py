import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--transport", default="http")
