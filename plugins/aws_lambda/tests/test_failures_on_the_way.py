"""Faults on the way, put there by a proxy: nothing is lost, and nothing runs twice without its attempt saying so."""

import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from threading import Thread

import pytest
from fake_lambda import FakeLambda, refusal
from faulty_proxy import Fault, FaultyProxy
from htcgrid.agent.agent import Agent
from htcgrid.builtin.memory import MemorySink, MemorySource
from htcgrid.spi import FailureKind, Function, Lease, Outcome, Rejected, Task, Unavailable
from real_agent import Opener, run

from htcgrid_aws_lambda import billing
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
        (Fault.CUT_BEFORE, True, 0),  # from here it cannot be distinguished from the next
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
    assert (plane.used().charged[billing.REQUESTS], plane.used().charged[billing.LOST]) == (1, 1)


def test_no_task_is_lost_and_none_runs_twice_without_its_attempt_saying_so(faulty: Faulty, fake: FakeLambda) -> None:
    dice = random.Random(7)
    plane = faulty(lambda _: dice.choices(list(Fault), weights=[60, 8, 8, 8, 8, 4, 4])[0])
    results, _ = run(plane, [Task(f"t-{n}", json.dumps({"n": n}).encode()) for n in range(200)])
    assert {task: json.loads(result.outcome.payload) for task, result in results.items()} == {
        f"t-{n}": {"n": n} for n in range(200)
    }
    ran = Counter(call.context["custom"]["task_id"] for call in fake.calls)
    assert max(ran.values()) > 1
    for task, times in ran.items():
        assert results[task].attempt >= times, f"{task} ran {times} times and its result says less"


def test_the_full_concurrency_is_used_again_after_a_burst_of_throttles(faulty: Faulty, fake: FakeLambda) -> None:
    refused: list[float] = []

    def choose(n: int) -> Fault:
        if n >= 50 and (not refused or time.monotonic() - refused[0] < 1.0):
            refused.append(time.monotonic())
            fake.most_in_flight = 0
            return Fault.THROTTLE
        return Fault.NONE

    tasks = [Task(f"t-{n}", json.dumps({"seconds": 0.05}).encode()) for n in range(1000)]
    results, summary = run(faulty(choose), tasks)
    assert len(results) == 1000
    assert len(fake.calls) == 1000, "a task ran twice"
    assert summary.retried == 0, "a refused call counted as an attempt"
    assert len(refused) > 5
    assert fake.most_in_flight == 8


def test_a_drain_past_its_grace_returns_what_aws_still_runs(opened: Opener, fake: FakeLambda) -> None:
    source = MemorySource(MemorySource.Config(), Function())
    source.put([Task("t-1", b'{"seconds": 3600}')])
    agent = Agent(source, opened(concurrency=1), MemorySink(MemorySink.Config(), Function()))
    running = Thread(target=agent.run)
    running.start()
    deadline = time.monotonic() + 20
    while fake.in_flight == 0:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    agent.drain(grace=0.1)
    running.join(20)
    assert not running.is_alive(), "the drain waits for the handler"
    assert source.stats(brief=True).states.waiting == 1


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
        (400, "RecursiveInvocationException", FailureKind.INVALID_EVENT),
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
    tasks = [Task(f"t-{n}", b'{"held": true}') for n in range(60)]
    running = Thread(target=run, args=(plane, tasks))
    running.start()
    deadline = time.monotonic() + 60
    while fake.in_flight < 5:
        assert time.monotonic() < deadline, "the configured concurrency is not used"
        time.sleep(0.01)
    fake.release()
    running.join()
    assert fake.most_in_flight == 5


def test_a_limit_below_the_configured_concurrency_is_found_and_kept_to(opened: Opener, fake: FakeLambda) -> None:
    fake.limit = 4
    plane = opened(concurrency=32)
    results, summary = run(plane, [Task(f"t-{n}", b'{"seconds": 0.05}') for n in range(400)])
    assert len(results) == 400
    assert len(fake.calls) == 400, "a task ran twice"
    assert summary.retried == 0, "a refused call counted as an attempt"
    assert fake.throttled < 100
