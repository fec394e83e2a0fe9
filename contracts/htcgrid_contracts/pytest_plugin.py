"""The pytest plugin: one test on many planes, and the marks that the contracts use.

`pytest --plane local,docker` gives tests the fixtures `plane`, an opened `htcgrid.spi.Invoker`, and
`lambda_function`, which calls the handler. Both stand for each plane in turn.
"""

from pathlib import Path

import pytest

GAPS = "known_gaps"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("htcgrid", "htcgrid: one test on many compute planes")
    group.addoption(
        "--plane", metavar="A,B", help="names of [planes] in the config to run tests on; its `plane` by default"
    )
    group.addoption(
        "--grid",
        metavar="FILE",
        type=Path,
        help="the config; by default htcgrid.toml here, beside the tests that are named, or in pytest's root folder",
    )
    group.addoption(
        "--strict-planes", action="store_true", help="fail where a plane is unavailable, instead of skipping the test"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "capability(*names): a rule for planes that claim these capabilities")
    # Imported here: a run without planes does not pay for what planes need.
    from htcgrid_contracts.planes import plane_fixtures  # noqa: PLC0415

    config.pluginmanager.register(plane_fixtures(config), "htcgrid-planes")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Expect the rules that a contract's `known_gaps` names to fail, and put the tests of a plane together.

    With `pytest -n N --dist loadgroup` each plane is opened by one worker only.
    """
    name = getattr(item, "originalname", item.name)
    gaps = getattr(getattr(item, "cls", None), GAPS, {})
    reason = gaps.get(item.name) or gaps.get(name)
    if reason:
        item.add_marker(pytest.mark.xfail(strict=True, reason=reason))
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    plane = parameters.get("plane")
    if isinstance(plane, str) and item.config.pluginmanager.hasplugin("xdist"):
        item.add_marker(pytest.mark.xdist_group(f"plane-{plane}"))
