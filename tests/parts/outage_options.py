"""What the tests of outages share: the options `--outage` and `--outage-table`, and how fast time runs."""

from pathlib import Path

import pytest

from htcgrid.agent import backoff
from htcgrid.agent.policy import back_off

SCALE = 1 / 30
"""How long a second of an outage takes, unless `--outage` says how long it lasts."""


def add_options(parser: pytest.Parser) -> None:
    parser.addoption(
        "--outage", type=float, default=0, help="seconds of an outage in test_outages.py; 0: as fast as possible"
    )
    parser.addoption("--outage-table", type=Path, default=None, help="file to which test_outages.py adds its figures")


def outage_seconds(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> float:
    """For how long a call is refused; the back-off is as much faster."""
    given = float(request.config.getoption("--outage"))
    if given:
        return given
    monkeypatch.setattr(
        backoff, "back_off", lambda failures, chance: back_off(failures, chance, 0.05 * SCALE, 30.0 * SCALE)
    )
    return 60.0 * SCALE
