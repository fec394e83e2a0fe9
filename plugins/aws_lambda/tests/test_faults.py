"""Faults on the way, put there by a proxy: nothing is lost, and nothing runs twice without its attempt saying so."""

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from fake_lambda import FakeLambda, refusal
from faulty_proxy import Fault, FaultyProxy
from htcgrid.spi import FailureKind, Lease, Outcome, Rejected, Task, Unavailable
from small_agent import Opener, run

from htcgrid_aws_lambda.invoker import AwsLambdaInvoker

Faulty = Callable[[Callable[[int], Fault]], AwsLambdaInvoker]


@pytest.fixture
def faulty(fake: FakeLambda, opened: Opener) -> Iterator[Faulty]:
    """A plane behind a proxy that chooses a fault for each Invoke."""
    with FaultyProxy(fake.url) as proxy:

        def open_one(choose: Callable[[int], Fault]) -> AwsLambdaInvoker:
            proxy.choose = choose
            return opened(endpoint_url=proxy.url, concurrency=8)

        yield open_one


def invoke(plane: AwsLambdaInvoker, event: object = None) -> Outcome:
    (outcome,) = plane.invoke([Lease(Task("t-1", json.dumps(event).encode()))], 30.0)
    assert isinstance(outcome, Outcome)
    return outcome


@pytest.mark.parametrize(
    ("fault", "may_have_run", "calls"),
    [
        (Fault.THROTTLE, False, 0),
        (Fault.ERROR, True, 0),
        (Fault.CUT_BEFORE, True, 0),  # from here it cannot be told from the next
        (Fault.CUT_AFTER, True, 1),
        (Fault.CUT_IN_BODY, True, 1),
    ],
)
def test_a_fault_is_unavailable_and_says_whether_the_handler_may_have_run(
    faulty: Faulty, fake: FakeLambda, fault: Fault, may_have_run: bool, calls: int
) -> None:
    plane = faulty(lambda _: fault)
    with pytest.raises(Unavailable) as caught:
        invoke(plane)
    assert caught.value.begun == (frozenset({"t-1"}) if may_have_run else frozenset())
    assert len(fake.calls) == calls, "the SDK tried again by itself"


def test_a_slow_answer_is_an_answer(faulty: Faulty) -> None:
    assert invoke(faulty(lambda _: Fault.SLOW), 5).payload == b"5"


def test_lost_answers_are_in_the_account_of_the_run(faulty: Faulty) -> None:
    plane = faulty(lambda n: Fault.CUT_AFTER if n == 0 else Fault.NONE)
    with pytest.raises(Unavailable):
        invoke(plane)
    invoke(plane)
    assert (plane.used().requests, plane.used().lost) == (1, 1)


def test_no_task_is_lost_and_none_runs_twice_without_its_attempt_saying_so(faulty: Faulty, fake: FakeLambda) -> None:
    dice = random.Random(7)
    plane = faulty(lambda _: dice.choices(list(Fault), weights=[60, 8, 8, 8, 8, 4, 4])[0])
    tasks = [Task(f"t-{n}", json.dumps({"n": n}).encode()) for n in range(300)]
    books = run(plane, tasks, threads=8)
    assert {task: json.loads(outcome.payload) for task, (outcome, _) in books.outcomes.items()} == {
        f"t-{n}": {"n": n} for n in range(300)
    }
    ran = Counter(call.context["custom"]["task_id"] for call in fake.calls)
    for task, times in ran.items():
        assert books.outcomes[task][1] >= times, f"{task} ran {times} times and its result says less"
    assert books.unavailable > 0


def test_the_full_concurrency_is_used_again_after_a_burst_of_throttles(faulty: Faulty, fake: FakeLambda) -> None:
    def choose(n: int) -> Fault:
        if n == 150:
            fake.most_in_flight = 0
        return Fault.THROTTLE if 50 <= n < 150 else Fault.NONE

    tasks = [Task(f"t-{n}", json.dumps({"seconds": 0.05}).encode()) for n in range(600)]
    books = run(faulty(choose), tasks, threads=8)
    assert len(books.outcomes) == 600
    assert books.unavailable == 100
    assert {attempt for _, attempt in books.outcomes.values()} == {1}, "a refused call counted as an attempt"
    assert fake.most_in_flight == 8


def test_retry_after_is_handed_on(opened: Opener, fake: FakeLambda) -> None:
    plane = opened()
    fake.refusals.append(refusal(429, "TooManyRequestsException", "slow down", Retry_After="3"))
    with pytest.raises(Unavailable) as caught:
        invoke(plane)
    assert caught.value.retry_after == 3.0


@pytest.mark.parametrize("code", ["ResourceConflictException", "SnapStartNotReadyException"])
def test_a_function_that_is_being_updated_is_unavailable_and_did_not_run(
    opened: Opener, fake: FakeLambda, code: str
) -> None:
    plane = opened()
    fake.refusals.append(refusal(409, code, "update in progress"))
    with pytest.raises(Unavailable) as caught:
        invoke(plane)
    assert caught.value.begun == frozenset()


@pytest.mark.parametrize(
    ("status", "code"),
    [(502, "KMSAccessDeniedException"), (502, "InvalidRuntimeException"), (404, "ResourceNotFoundException")],
)
def test_what_only_a_change_of_settings_can_mend_is_rejected(
    opened: Opener, fake: FakeLambda, status: int, code: str
) -> None:
    plane = opened()
    fake.refusals.append(refusal(status, code, "it is so"))
    with pytest.raises(Rejected, match="it is so"):
        invoke(plane)


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "InvalidRequestContentException", FailureKind.INVALID_EVENT),
        (413, "RequestTooLargeException", FailureKind.PAYLOAD_TOO_LARGE),
    ],
)
def test_an_event_that_the_service_will_not_take_fails_its_task_and_not_the_run(
    opened: Opener, fake: FakeLambda, status: int, code: str, kind: FailureKind
) -> None:
    plane = opened()
    fake.refusals.append(refusal(status, code, "could not parse"))
    outcome = invoke(plane)
    assert outcome.failure is kind
    assert json.loads(outcome.payload) == {"errorType": code, "errorMessage": "could not parse"}
    assert invoke(plane, 1).failure is None


def test_never_more_calls_are_in_flight_than_configured(opened: Opener, fake: FakeLambda) -> None:
    plane = opened(concurrency=5)
    tasks = [Task(f"t-{n}", b'{"seconds": 0.01}') for n in range(60)]
    run(plane, tasks, threads=20)
    assert fake.most_in_flight <= 5


def test_a_limit_below_the_configured_concurrency_is_found_and_kept_to(opened: Opener, fake: FakeLambda) -> None:
    fake.limit = 4
    plane = opened(concurrency=64)
    tasks = [Task(f"t-{n}", b'{"seconds": 0.02}') for n in range(400)]
    books = run(plane, tasks, threads=16)
    assert len(books.outcomes) == 400
    assert plane._gate is not None
    assert plane._gate.allowed < 16
