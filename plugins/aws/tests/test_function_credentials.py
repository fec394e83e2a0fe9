"""`[function] credentials`: a handler is for AWS who the config says, and nobody else."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta, tzinfo
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest
from conftest import REGION
from htcgrid_aws import function_credentials
from htcgrid_aws.function_credentials import FunctionCredentials

from htcgrid.plugins import load_credentials
from htcgrid.spi import Credentials, Function, Rejected, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Aws

HTCGRID = Path(sys.executable).with_name("htcgrid")
ROLE = "arn:aws:iam::123456789012:role/pricing"
HANDLER = """\
import boto3, os

def handler(event, context):
    body = boto3.client("s3").get_object(Bucket=event["bucket"], Key="in")["Body"].read()
    boto3.resource("dynamodb").Table(event["table"]).put_item(Item={"id": event["id"], "body": body.decode()})
    who = boto3.client("sts").get_caller_identity()["Arn"]
    return {"who": who, "region": boto3.session.Session().region_name, "arn": context.invoked_function_arn}
"""


class Project:
    """A folder with a handler that reads from S3, writes to DynamoDB, and says who it is."""

    def __init__(self, folder: Path, aws: Aws) -> None:
        self.folder, self.url = folder, aws.url
        (folder / "work.py").write_text(HANDLER)
        bucket, self.table = f"in-{folder.name.replace('_', '-')}"[:60], f"out-{folder.name}"
        s3 = aws.client("s3")
        s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
        s3.put_object(Bucket=bucket, Key="in", Body=b"read from S3")
        self.dynamodb = aws.client("dynamodb")
        self.dynamodb.create_table(
            TableName=self.table,
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            BillingMode="PAY_PER_REQUEST",
        )
        self.event = json.dumps({"id": "1", "bucket": bucket, "table": self.table})

    def invoke(self, *options: str) -> subprocess.CompletedProcess[str]:
        text = f'[function]\nhandler = "work.handler"\nendpoint_url = "{self.url}"\n'
        (self.folder / "htcgrid.toml").write_text(text)
        pairs = [part for option in options for part in ("--set", option)]
        return subprocess.run(
            [HTCGRID, "invoke", self.event, *pairs],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def project(tmp_path: Path, aws: Aws) -> Project:
    return Project(tmp_path, aws)


@pytest.mark.parametrize("transport", ["socket", "http"])
def test_a_handler_acts_as_the_role_that_was_assumed_for_it(project: Project, transport: str) -> None:
    options = ["planes.local.plugin='process'", f"planes.local.transport='{transport}'"]
    done = project.invoke(f"function.credentials={ROLE!r}".replace("'arn", "'role:arn"), *options)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["who"] == "arn:aws:sts::123456789012:assumed-role/pricing/htcgrid-work"
    assert answer["region"] == REGION
    assert answer["arn"].startswith(f"arn:aws:lambda:{REGION}:123456789012:function:")
    stored = project.dynamodb.get_item(TableName=project.table, Key={"id": {"S": "1"}})["Item"]
    assert stored["body"]["S"] == "read from S3"


def test_a_handler_without_credentials_says_what_its_own_sdk_says_of_that(project: Project) -> None:
    done = project.invoke()
    assert done.returncode == 1
    assert "Unable to locate credentials" in done.stdout + done.stderr


def test_a_handler_has_those_of_the_agent_or_of_a_profile(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert project.invoke("function.credentials='agent'").returncode == 0
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    (tmp_path / "credentials").write_text("[pricing]\naws_access_key_id = AKIAPRICING\naws_secret_access_key = s\n")
    assert project.invoke("function.credentials='profile:pricing'").returncode == 0


# --- how long they hold ---


@pytest.fixture
def process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """The profile `made` is what this program prints."""
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))

    def make(program: str) -> None:
        (tmp_path / "made.py").write_text(program)
        command = f"credential_process = {sys.executable} {tmp_path / 'made.py'}"
        (tmp_path / "config").write_text(f"[profile made]\n{command}\n")

    return make


def short_lived(seconds: float) -> str:
    return (
        "import datetime, json, time\n"
        f"until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds={seconds})\n"
        "print(json.dumps({'Version': 1, 'AccessKeyId': f'KEY{time.time_ns()}', 'SecretAccessKey': 's',\n"
        "                  'SessionToken': 't', 'Expiration': until.isoformat()}))\n"
    )


def issuing(credentials: str, **keys: Any) -> FunctionCredentials:
    return FunctionCredentials(Function(handler="work.handler", credentials=credentials, **keys))


def test_they_are_kept_as_long_as_they_last_for_an_invocation_and_then_renewed(
    process: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    process(short_lived(60))
    source = issuing("profile:made")
    first = source.current(30)
    assert source.current(30) is first
    now = time.monotonic()
    monkeypatch.setattr("time.monotonic", lambda: now + 40)
    second = source.current(30)
    assert second.variables != first.variables
    assert source.current(30) is second


def test_those_of_a_role_that_a_profile_assumes_are_renewed_for_invocations_of_half_an_hour(
    aws: Aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").write_text(
        f"[profile assumed]\nrole_arn = {ROLE}\ncredential_source = Environment\nregion = {REGION}\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", aws.url)
    source = issuing("profile:assumed")
    first = source.current(1800)
    assert 3500 < first.lifetime <= 3600
    now = time.monotonic()
    monkeypatch.setattr("time.monotonic", lambda: now + 2400)
    assert source.current(1800).variables != first.variables


def test_whoever_issues_the_same_ones_again_is_not_asked_for_each_invocation(process: Callable[[str], None]) -> None:
    process(short_lived(60))
    source = issuing("profile:made")
    first = source.current(3600)  # longer than they will ever last
    assert source.current(3600) is first


def test_a_user_is_told_that_they_live_shorter_than_an_invocation_may_take(
    process: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    process(short_lived(60))
    issuing("profile:made").current(900)
    assert "are valid for 60 s, and an invocation may take 900 s" in caplog.text


def test_no_repr_shows_them(process: Callable[[str], None]) -> None:
    process(short_lived(60))
    source = issuing("profile:made")
    held = source.current(30)
    assert held.variables["AWS_ACCESS_KEY_ID"] not in repr(held) + repr(source) + repr(vars(source))


# --- what can be wrong with them ---


def test_a_profile_that_is_missing_is_named(project: Project) -> None:
    done = project.invoke("function.credentials='profile:nobody'")
    assert done.returncode == 2
    assert 'getting the credentials of [function] credentials = "profile:nobody"' in done.stderr
    assert "could not be found" in done.stderr


def test_an_sdk_that_is_missing_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    monkeypatch.delitem(sys.modules, "htcgrid_aws.function_credentials")
    with pytest.raises(Rejected, match=r"(?s)boto3.*To install it: pip install htcgrid-aws"):
        load_credentials("agent")


def test_credentials_that_the_agent_has_not_itself_are_refused(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    done = project.invoke("function.credentials='agent'")
    assert done.returncode == 2
    assert "the SDK found none" in done.stderr


def test_a_single_sign_on_that_has_expired_says_how_to_renew_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    (tmp_path / "config").write_text(
        "[profile work]\nsso_session = s\nsso_account_id = 123456789012\nsso_role_name = r\nregion = eu-west-1\n"
        "[sso-session s]\nsso_region = eu-west-1\nsso_start_url = https://example.awsapps.com/start\n"
    )
    cache = tmp_path / ".aws" / "sso" / "cache"
    cache.mkdir(parents=True)
    ended = (datetime.now(UTC) - timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    (cache / "a0f1490a20d0211c997b44bc357e1972deab8ae3.json").write_text(  # named after the session
        json.dumps({"accessToken": "x", "expiresAt": ended, "startUrl": "https://example.awsapps.com/start"})
    )
    with pytest.raises(Rejected, match="aws sso login"):
        issuing("profile:work").current(30)


def test_credentials_that_have_expired_when_they_come_blame_the_clock(process: Callable[[str], None]) -> None:
    process(short_lived(-3600))
    with pytest.raises((Rejected, Unavailable), match=r"clock is ahead"):
        issuing("profile:made").current(30)


@pytest.fixture
def sts() -> Iterator[Callable[[int, str, str], str]]:
    """The address of an STS that answers everything with this error."""
    servers = []

    def answering(status: int, code: str, message: str) -> str:
        body = f"<ErrorResponse><Error><Code>{code}</Code><Message>{message}</Message></Error></ErrorResponse>".encode()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield answering
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "code", "message", "kind", "advice"),
    [
        (403, "AccessDenied", "not authorized to perform: sts:AssumeRole", Rejected, "trust policy"),
        (403, "AccessDenied", "not authorized to perform: sts:TagSession", Rejected, "session_tags = false"),
        (403, "SignatureDoesNotMatch", "Signature expired: 10:00 is now earlier than 11:00", Rejected, "clock"),
        (400, "ExpiredToken", "The security token has expired", Rejected, "renew"),
        (400, "Throttling", "Rate exceeded", Unavailable, "throttles"),
        (503, "ServiceUnavailable", "later", Unavailable, "fault"),
    ],
)
def test_a_role_that_cannot_be_assumed_says_why_and_what_to_do(
    sts: Callable[[int, str, str], str], status: int, code: str, message: str, kind: type[Exception], advice: str
) -> None:
    source = issuing(f"role:{ROLE}", endpoint_url=sts(status, code, message))
    with pytest.raises(kind, match=advice) as error:
        source.current(30)
    assert ROLE in str(error.value)


def test_a_clock_that_is_behind_does_not_make_a_role_last_longer(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    class TenMinutesBehind:
        """As far as signatures allow."""

        @staticmethod
        def now(zone: tzinfo) -> datetime:
            return datetime.now(zone) - timedelta(minutes=10)

    monkeypatch.setattr(function_credentials, "datetime", TenMinutesBehind)
    held = issuing(f"role:{ROLE}", endpoint_url=aws.url).current(30)
    assert held.lifetime <= 3600
    assert held.expires <= time.monotonic() + 3600


def test_a_role_is_assumed_with_what_its_trust_policy_asks_for(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: dict[str, Any] = {}
    source = issuing(
        f"role:{ROLE}",
        endpoint_url=aws.url,
        name="my function#1 (é)",
        external_id="e-1",
        session_policy='{"Version": "1"}',
    )
    role: Any = source._issue
    made = role._client

    def client() -> Any:
        found = made()
        found.meta.events.register("provide-client-params.sts.AssumeRole", lambda params, **_: sent.update(params))
        return found

    monkeypatch.setattr(role, "_client", client)
    assert isinstance(source.current(30), Credentials)
    assert sent["ExternalId"] == "e-1"
    assert sent["Policy"] == '{"Version": "1"}'
    assert sent["RoleSessionName"] == "htcgrid-my-function-1----"
    assert sent["Tags"] == [{"Key": "htcgrid:function", "Value": "my function-1 -é-"}]


def test_a_call_that_the_sdk_refuses_says_why() -> None:
    with pytest.raises(Rejected, match="Invalid length for parameter RoleArn"):
        issuing("role:arn:x").current(30)


def test_a_profile_may_have_a_space_in_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    (tmp_path / "credentials").write_text("[my profile]\naws_access_key_id = AKIAMINE\naws_secret_access_key = s\n")
    assert issuing("profile:my profile").current(30).variables["AWS_ACCESS_KEY_ID"] == "AKIAMINE"


@pytest.mark.parametrize("external_id", ["x", "a b", "é1", "#12"])
def test_an_external_id_that_sts_does_not_take_is_refused_before_anything_runs(external_id: str) -> None:
    with pytest.raises(ValueError, match="external_id"):
        issuing(f"role:{ROLE}", external_id=external_id)


def test_the_right_to_assume_the_role_is_among_the_agents_permissions(project: Project) -> None:
    project.invoke()
    done = subprocess.run(
        [HTCGRID, "permissions", "agent", "--set", f"function.credentials=role:{ROLE}"],
        cwd=project.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    [statement] = json.loads(done.stdout)["Statement"]
    assert statement["Action"] == ["sts:AssumeRole", "sts:TagSession"]
    assert statement["Resource"] == ROLE
