"""Who may run functions through `serve`: no web page, and beyond this machine only who has a key."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from served import CONFIG, Service

KEYS = "[default]\naws_access_key_id = AKIDEXAMPLE\naws_secret_access_key = se/cr+et=%x\n[other]\naws_access_key_id=AKIDOTHER\naws_secret_access_key=zzz\n"
TOKEN = "0123456789abcdef0123"


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("locked")
    (folder / "keys").write_text(KEYS)
    (folder / "token").write_text(f"{TOKEN}\n")
    served = Service(folder, "--keys-file", str(folder / "keys"), "--token-file", str(folder / "token"))
    yield served
    said = served.stop()
    assert "Traceback" not in said
    assert TOKEN not in said


# --- Web pages ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:3000"},
        {"Origin": "https://evil.example", "Content-Type": "application/x-www-form-urlencoded"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
@pytest.mark.parametrize("kind", ["RequestResponse", "Event"])
def test_a_web_page_runs_no_function(service: Service, tmp_path: Path, headers: dict[str, str], kind: str) -> None:
    note = tmp_path / "note"
    reply = service.call({"note": str(note)}, **headers, x_amz_invocation_type=kind)
    assert (reply.status, reply.kind) == (403, "AccessDeniedException")
    assert not note.exists()


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:9001", "127.0.0.1.evil.example", "evil.example.", "[::1].evil.example"]
)
def test_a_name_of_the_internet_is_not_ours(service: Service, host: str) -> None:
    reply = service.call({}, Host=host)
    assert (reply.status, reply.kind) == (403, "AccessDeniedException")
    assert "localhost" in reply.json["Message"]


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9001", "127.0.0.1:1", "[::1]:9001", "a.localhost", "serve"])
def test_an_address_and_a_name_of_this_network_are_ours(service: Service, host: str) -> None:
    assert service.call({"n": 1}, Host=host).json == {"n": 1}


# --- Keys --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("authorization", "kind"),
    [
        ("", "MissingAuthenticationTokenException"),
        ("Basic eDp5", "MissingAuthenticationTokenException"),
        ("Bearer", "UnrecognizedClientException"),
        (f"Bearer {TOKEN}x", "UnrecognizedClientException"),
        (f"Bearer {TOKEN[:-1]}", "UnrecognizedClientException"),
        ("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE", "InvalidSignatureException"),
    ],
)
def test_without_a_key_nothing_is_run_or_told(locked: Service, authorization: str, kind: str) -> None:
    for name in ("pricing", "none"):
        reply = locked.call({}, name=name, **({"Authorization": authorization} if authorization else {}))
        assert (reply.status, reply.kind) == (403, kind)
        assert TOKEN not in str(reply)


def test_the_token_lets_in_from_wherever_it_comes(locked: Service) -> None:
    assert locked.call({"n": 1}, Authorization=f"Bearer {TOKEN}", Host="grid.example").json == {"n": 1}
    assert locked.call({"n": 1}, Authorization=f"bearer {TOKEN}").json == {"n": 1}
    assert locked.call({}, Authorization=f"Bearer {TOKEN}", Origin="https://evil.example").status == 403


def client(service: Service, key: str, secret: str) -> Any:
    boto3 = pytest.importorskip("boto3", reason="AWS's SDK is a client of `serve`: pip install boto3")
    return boto3.client(
        "lambda",
        endpoint_url=service.url,
        region_name="eu-central-1",
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        config=boto3.session.Config(retries={"total_max_attempts": 1}, read_timeout=60),
    )


@pytest.mark.parametrize(("key", "secret"), [("AKIDEXAMPLE", "se/cr+et=%x"), ("AKIDOTHER", "zzz")])
def test_awss_sdk_signs_with_any_key_of_the_file(locked: Service, key: str, secret: str) -> None:
    aws = client(locked, key, secret)
    reply = aws.invoke(FunctionName="pricing", Payload=b'{"n": 1}', LogType="Tail", Qualifier="$LATEST")
    assert json.loads(reply["Payload"].read()) == {"n": 1}
    arn = "arn:aws:lambda:eu-west-1:123456789012:function:other"
    assert json.loads(aws.invoke(FunctionName=arn)["Payload"].read()) == "other"
    assert aws.invoke(FunctionName="pricing", InvocationType="Event", Payload=b"{}")["StatusCode"] == 202
    aws.close()


def test_another_secret_and_another_key_are_the_sdks_errors(locked: Service, tmp_path: Path) -> None:
    exceptions = pytest.importorskip("botocore.exceptions")
    for key, secret, code in (
        ("AKIDEXAMPLE", "wrong", "InvalidSignatureException"),
        ("AKIDNOBODY", "zzz", "UnrecognizedClientException"),
    ):
        aws = client(locked, key, secret)
        note = tmp_path / "note"
        with pytest.raises(exceptions.ClientError, match=code):
            aws.invoke(FunctionName="pricing", Payload=json.dumps({"note": str(note)}).encode())
        assert not note.exists()
        aws.close()


# --- Options -----------------------------------------------------------------------------------------


def refused(folder: Path, *options: str) -> str:
    (folder / "htcgrid.toml").write_text(CONFIG)
    program: list[str | Path] = [Path(sys.executable).with_name("htcgrid"), "serve", "--port", "0", *options]
    done = subprocess.run(program, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.parametrize("host", ["0.0.0.0", "", "::"])
def test_an_address_that_others_reach_takes_keys(tmp_path: Path, host: str) -> None:
    said = refused(tmp_path, "--host", host)
    assert "--keys-file" in said
    assert "--token-file" in said


def test_a_file_that_holds_no_key_is_refused_and_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    assert "No such file" in refused(tmp_path, "--token-file", str(file))
    for text in ("short", "two words of a long secret", "", "é" * 20):
        file.write_text(text)
        said = refused(tmp_path, "--token-file", str(file))
        assert "openssl rand" in said
        assert not text or text not in said.replace("--token-file", "")
    for text in ("", "AKID hidden-secret", "[default]\naws_access_key_id = hidden-secret", "[a]\nhidden-secret"):
        file.write_text(text)
        said = refused(tmp_path, "--keys-file", str(file))
        assert "aws_secret_access_key" in said
        assert "hidden-secret" not in said


@pytest.mark.parametrize("option", ["--token-file", "--keys-file"])
def test_a_file_of_keys_without_an_end_is_refused(tmp_path: Path, option: str) -> None:
    assert f"{option} /dev/zero: the file is longer than" in refused(tmp_path, option, "/dev/zero")


def test_a_host_that_is_none_is_refused(tmp_path: Path) -> None:
    assert "--host" in refused(tmp_path, "--host", "no such host\x1b[31m")
