"""What stands in the way of a start is told in a sentence that says what to do."""

from pathlib import Path

import pytest
from fake_lambda import READY, FakeLambda, refusal
from htcgrid.spi import Function, Rejected, Unavailable
from real_agent import Opener

from htcgrid_aws_lambda.invoker import AwsLambdaInvoker


def test_a_plane_opens_with_no_right_but_to_invoke(opened: Opener, fake: FakeLambda) -> None:
    fake.configuration = fake.account = None
    assert opened(concurrency=7).max_concurrency == 7
    assert (fake.probes, fake.calls) == (1, [])


def test_concurrency_keeps_to_what_the_account_has_left(opened: Opener, fake: FakeLambda) -> None:
    fake.account = {"UnreservedConcurrentExecutions": 40}
    assert opened(concurrency=300).max_concurrency == 40


def test_concurrency_keeps_to_what_is_reserved_for_the_function(opened: Opener, fake: FakeLambda) -> None:
    fake.reserved = 12
    assert opened(concurrency=300).max_concurrency == 12


def test_a_function_that_is_switched_off_is_rejected(opened: Opener, fake: FakeLambda) -> None:
    fake.reserved = 0
    with pytest.raises(Rejected, match="reserved concurrency of 0, which switches it off"):
        opened()


@pytest.mark.parametrize("state", ["Active", "Inactive"])
def test_a_function_that_the_next_call_wakes_is_open(opened: Opener, fake: FakeLambda, state: str) -> None:
    fake.configuration = READY | {"State": state}
    opened()


def test_a_pending_function_is_unavailable_with_its_reason(opened: Opener, fake: FakeLambda) -> None:
    fake.configuration = READY | {"State": "Pending", "StateReasonCode": "Creating", "StateReason": "being created"}
    with pytest.raises(Unavailable, match=r"is Pending \(Creating: being created\)"):
        opened()


def test_a_failed_function_is_rejected_with_its_reason(opened: Opener, fake: FakeLambda) -> None:
    fake.configuration = READY | {"State": "Failed", "StateReasonCode": "ImageDeleted", "StateReason": "gone"}
    with pytest.raises(Rejected, match=r"is Failed \(ImageDeleted: gone\)"):
        opened()


def test_another_timeout_on_the_service_than_in_the_config_is_rejected(opened: Opener, fake: FakeLambda) -> None:
    fake.configuration = READY | {"Timeout": 900}
    with pytest.raises(Rejected, match="timeout = 900"):
        opened()


def test_a_missing_function_is_rejected_with_the_places_to_look(opened: Opener, fake: FakeLambda) -> None:
    fake.refusals.append(refusal(404, "ResourceNotFoundException", "Function not found: arn:pricing:live"))
    with pytest.raises(Rejected, match=r"Function not found.*`region`.*`qualifier`.*htcgrid deploy"):
        opened()


def test_a_missing_permission_is_named(opened: Opener, fake: FakeLambda) -> None:
    message = "User: arn:aws:iam::1:user/u is not authorized to perform: lambda:InvokeFunction on resource: x"
    fake.refusals.append(refusal(403, "AccessDeniedException", message))
    with pytest.raises(Rejected, match="Allow the caller `lambda:InvokeFunction`"):
        opened()


def test_a_missing_permission_is_named_where_aws_does_not(opened: Opener, fake: FakeLambda) -> None:
    fake.refusals.append(refusal(403, "AccessDeniedException", "no"))
    with pytest.raises(Rejected, match="Allow the caller `lambda:InvokeFunction`"):
        opened()


def test_an_expired_token_is_rejected_with_the_word_to_log_in(opened: Opener, fake: FakeLambda) -> None:
    fake.refusals.append(refusal(403, "ExpiredTokenException", "The security token included in the request is expired"))
    with pytest.raises(Rejected, match="log in again"):
        opened()


def test_credentials_that_do_not_hold_in_this_region_are_rejected(opened: Opener, fake: FakeLambda) -> None:
    fake.refusals.append(refusal(403, "UnrecognizedClientException", "The security token is invalid"))
    with pytest.raises(Rejected, match="region 'eu-west-1' is right and enabled"):
        opened()


def test_a_quota_is_called_one(opened: Opener, fake: FakeLambda) -> None:
    fake.refusals.append(refusal(402, "ServiceQuotaExceededException", "too much"))
    with pytest.raises(Rejected, match="Service Quotas"):
        opened()


def test_no_credentials_are_rejected_with_the_ways_to_get_some(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(Rejected, match="aws sso login"):
        opened()


def test_no_region_is_rejected_with_the_key_to_write(opened: Opener) -> None:
    with pytest.raises(Rejected, match="no AWS region is set; write region"):
        opened(region="", endpoint_url="")


def test_an_unknown_profile_is_rejected_with_its_name(opened: Opener) -> None:
    with pytest.raises(Rejected, match=r"profile \(nobody\) could not be found"):
        opened(profile="nobody")


def test_a_region_that_cannot_be_reached_is_unavailable_with_its_name() -> None:
    config = AwsLambdaInvoker.Config(region="xx-nowhere-1")
    with pytest.raises(Unavailable, match="the region 'xx-nowhere-1' exists"):
        AwsLambdaInvoker(config, Function(handler="pricing.handler")).open()


def test_an_endpoint_where_nothing_listens_is_unavailable(opened: Opener) -> None:
    with pytest.raises(Unavailable, match="Check `endpoint_url`"):
        opened(endpoint_url="http://127.0.0.1:9")


def test_no_secret_is_in_a_message_or_a_log(
    opened: Opener, fake: FakeLambda, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level("INFO")
    fake.refusals.append(refusal(403, "ExpiredTokenException", "expired"))
    with pytest.raises(Rejected) as caught:
        opened()
    assert "made-up-secret" not in f"{caught.value} {caught.value!r} {caplog.text}"
