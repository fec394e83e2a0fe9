from collections.abc import Iterator

import pytest
from served import Service


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Shared by a module; no test may leave a bug's traceback behind."""
    served = Service(tmp_path_factory.mktemp("service"))
    yield served
    assert "Traceback" not in served.stop()
