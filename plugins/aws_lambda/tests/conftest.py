from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import boto3
import outage_options
import pytest
from fake_lambda import FakeLambda
from htcgrid.spi import Function
from moto_aws import empty_aws
from real_agent import Opener

from htcgrid_aws_lambda.invoker import AwsLambdaInvoker

Maker = Callable[..., AwsLambdaInvoker]
REGION = "eu-west-1"


def pytest_addoption(parser: pytest.Parser) -> None:
    outage_options.add_options(parser)
    parser.addoption("--aws", action="store_true", help="run the tests of the service on AWS itself; it costs cents")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "aws: runs on AWS itself, with the credentials of the environment and --aws")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--aws"):
        for item in items:
            if item.get_closest_marker("aws"):
                item.add_marker(pytest.mark.skip(reason="needs --aws and credentials of an AWS account"))


@pytest.fixture(autouse=True)
def _no_credentials_of_this_machine(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Made-up credentials, and none of the machine's own: no test can reach a real account by accident."""
    if request.node.get_closest_marker("aws"):
        return
    for name in ("AWS_PROFILE", "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAMADEUP")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "made-up-secret")


@pytest.fixture
def fake() -> Iterator[FakeLambda]:
    with FakeLambda() as fake:
        yield fake


@pytest.fixture
def opened(fake: FakeLambda) -> Iterator[Opener]:
    """Open a plane on the fake service, or at another `endpoint_url`."""
    with ExitStack() as planes:

        def open_one(**options: Any) -> AwsLambdaInvoker:
            config = AwsLambdaInvoker.Config(**{"region": "eu-west-1", "endpoint_url": fake.url, **options})
            return planes.enter_context(AwsLambdaInvoker(config, Function(handler="pricing.handler")))

        yield open_one


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    with empty_aws() as url:
        yield url


@pytest.fixture
def aws(moto: str) -> Iterator[Callable[[str], Any]]:
    """Clients that look at what stands, past the plugin."""
    yield lambda service: boto3.client(service, region_name=REGION, endpoint_url=moto)
    urlopen(Request(f"{moto}/moto-api/reset", method="POST")).close()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "src"
    folder.mkdir()
    (folder / "pricing.py").write_text("def handler(event, context):\n    return event\n")
    return folder


@pytest.fixture
def plane(moto: str, source: Path, aws: object) -> Maker:
    def make(options: dict[str, Any] | None = None, **function: Any) -> AwsLambdaInvoker:
        config = AwsLambdaInvoker.Config(region=REGION, endpoint_url=moto, **options or {})
        return AwsLambdaInvoker(config, Function(**{"handler": "pricing.handler", "code": source, **function}))

    return make
