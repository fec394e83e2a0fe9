from collections.abc import Iterator
from pathlib import Path

import pytest
from aws import Aws, serving


@pytest.fixture
def aws(tmp_path: Path) -> Iterator[Aws]:
    with serving(tmp_path / "aws.log") as aws:
        yield aws
