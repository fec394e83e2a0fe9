"""The rules of htcgrid's plugin interface, for each plugin of this distribution."""

from __future__ import annotations

import itertools
import json
import math
import re
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from htcgrid_aws.dynamodb import DynamodbSink
from htcgrid_aws.htc_sink import HtcGridSink
from htcgrid_aws.htc_source import HtcGridSource
from htcgrid_aws.s3 import S3Sink
from htcgrid_aws.sqs import SqsSource
from htcgrid_contracts import ResultSinkContract, TaskSourceContract
from htcgrid_contracts.common import not_asked
from service_answers import throttled

from htcgrid.spi import Function, Plugin, Result, ResultSink, Task, TaskSource

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from conftest import Aws, HtcGrid

LEASE = 6  # seconds; a busy machine was seen to take five to open a second receiver


NO_IDS = "SQS knows no ids: task_table has a row for each task, which costs more than all the rest"
NO_NAMES = (
    "SQS cannot say which tasks wait, and task_table is not set; those of a cancelled session get their result when "
    "their message comes"
)


NOT_VISIBLE = "SQS counts a message that was returned with a delay, or whose task was cancelled, as in flight"
NO_ATTEMPTS = "SQS counts the receives of the dead-letter queue from 1"
LAST_STAYS = "of the first generation the last answer stays, so that a job that is run again has its new answers"

SESSION_OF_ID = "HTC-Grid takes a task's session from its id: tasks of a session have other ids than these"


class Throttling:
    """The service refuses these operations from `throttle` to `end_throttle`."""

    refused: ClassVar[Sequence[str]]

    def throttle(self, plugin: Plugin) -> None:
        self._refusing = ExitStack()
        self._refusing.enter_context(throttled(plugin, *self.refused))

    def end_throttle(self, plugin: Plugin) -> None:
        self._refusing.close()


@pytest.fixture(autouse=True)
def _short_read_timeout(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A silent service has as long to answer as a long poll takes, which is long for a test."""
    if "frozen" in request.node.name:
        monkeypatch.setattr("htcgrid_aws.session.READ_SECONDS", 5)


class TestSqs(Throttling, TaskSourceContract):
    aws: Aws
    refused = ("sqs.ReceiveMessage",)
    wait_factor = 2.0
    many_tasks = 60  # each is a call to the server of the tests
    largest_payload = 1_000_000
    known_gaps: ClassVar[Mapping[str, str]] = {
        "test_put_rejects_an_id_that_is_there_already": NO_IDS,
        "test_put_accepts_all_or_none": NO_IDS,
        "test_put_of_a_task_that_is_there_leaves_one": NO_IDS,
        "test_what_is_redriven_twice_is_lent_once": NO_IDS,
        "test_cancelling_a_session_leaves_the_others_alone": NO_NAMES,
        "test_cancelling_what_is_not_there_is_none": NO_NAMES,
        "test_cancelling_again_names_the_same_tasks": NO_NAMES,
        "test_cancel_names_each_task_once_and_none_that_is_done": NO_NAMES,
        "test_sessions_are_told_apart_by_their_whole_names": NO_NAMES,
        "test_more_tasks_than_a_page_are_put_and_cancelled": NO_NAMES,
        "test_cancel_returns_tasks_with_their_session": NO_NAMES,
        "test_cancel_takes_ids_as_they_are": NO_NAMES,
        "test_put_of_a_task_that_is_leased_changes_nothing": NO_IDS,
        "test_submitters_of_the_same_tasks_at_once_leave_each_once": NO_IDS,
        "test_put_knows_a_task_whose_attributes_come_in_another_order": NO_IDS,
        "test_a_redrive_that_was_cut_off_is_completed_by_giving_it_again": NO_IDS,
        "test_put_rejects_what_differs_in_its_attributes_or_comes_twice": NO_IDS,
        "test_a_session_in_every_state_is_cancelled_right": NO_NAMES,
        "test_a_queue_in_every_state_is_counted_right": NOT_VISIBLE,
        "test_a_dead_letter_tells_its_attempts": NO_ATTEMPTS,
    }

    @pytest.fixture
    def source(self, own_aws: Aws) -> TaskSource:
        self.aws = own_aws
        config = SqsSource.Config(
            queue=own_aws.queue(LEASE),
            endpoint_url=own_aws.url,
            visibility_timeout=LEASE,
            dead_letter_queue=own_aws.queue(),
            cancel_table=own_aws.table(),
        )
        return SqsSource(config, Function())

    @pytest.fixture
    def missing(self, aws: Aws) -> Plugin:
        return SqsSource(SqsSource.Config(queue="no-such-queue", endpoint_url=aws.url), Function())

    def publish(self, source: TaskSource, tasks: Sequence[Task]) -> None:
        """As any other program would write htcgrid's messages."""
        assert isinstance(source, SqsSource)
        for task in tasks:
            facts = json.dumps({"id": task.id, "attributes": dict(task.attributes)})
            self.aws.send(source.config.queue, task.payload.decode(), htcgrid=facts)

    def publish_invalid(self, source: TaskSource) -> None:
        assert isinstance(source, SqsSource)
        self.aws.send(source.config.queue, "not JSON {")

    def take_away(self, plugin: Plugin) -> None:
        self.aws.server.stop()


class Narrowed:
    """Only the rules of some modules, a regular expression: the others are asked of TestSqs, to save time."""

    modules: ClassVar[str]

    @pytest.fixture(autouse=True)
    def _of_these_modules(self, request: pytest.FixtureRequest) -> None:
        if not re.search(self.modules, request.function.__module__):
            not_asked("it is asked of TestSqs")


class TestSqsPut(Narrowed, TestSqs):
    """With the source's own `put`."""

    modules = "queue"

    def publish(self, source: TaskSource, tasks: Sequence[Task]) -> None:
        assert isinstance(source, SqsSource)
        with SqsSource(source.config, Function()) as submitter:
            submitter.put(tasks)


class TestSqsWithTaskTable(TestSqs):
    """The same with a row for each task: the whole contract."""

    publish = TestSqsPut.publish
    test_a_service_that_is_frozen_is_unavailable = None  # type: ignore[assignment]  # the clients are the same

    known_gaps: ClassVar[Mapping[str, str]] = {
        "test_a_queue_in_every_state_is_counted_right": NOT_VISIBLE,
        "test_a_dead_letter_tells_its_attempts": NO_ATTEMPTS,
    }

    # Two submitters in the same moment may both find no row and send: a task then runs twice, and has one result.
    test_submitters_of_the_same_tasks_at_once_leave_each_once = None  # type: ignore[assignment]

    @pytest.fixture
    def source(self, own_aws: Aws) -> TaskSource:
        self.aws = own_aws
        config = SqsSource.Config(
            queue=own_aws.queue(LEASE),
            endpoint_url=own_aws.url,
            visibility_timeout=LEASE,
            dead_letter_queue=own_aws.queue(),
            task_table=own_aws.table(),
        )
        return SqsSource(config, Function())

    @pytest.fixture
    def missing(self, aws: Aws) -> Plugin:
        config = SqsSource.Config(queue=aws.queue(), endpoint_url=aws.url, task_table="no-such-table")
        return SqsSource(config, Function())


class TestSqsPriorities(Narrowed, TestSqs):
    """Over three queues, of which the middle one is fed."""

    modules = "common|queue|receive|wait|lease|settling|dead_letter"

    @pytest.fixture
    def source(self, own_aws: Aws) -> TaskSource:
        self.aws = own_aws
        queues = tuple(own_aws.queue(LEASE) for _ in range(3))
        config = SqsSource.Config(
            queues=queues,
            endpoint_url=own_aws.url,
            visibility_timeout=LEASE,
            dead_letter_queue=own_aws.queue(),
            cancel_table=own_aws.table(),
        )
        return SqsSource(config, Function())

    def publish(self, source: TaskSource, tasks: Sequence[Task]) -> None:
        assert isinstance(source, SqsSource)
        for task in tasks:
            facts = json.dumps({"id": task.id, "attributes": dict(task.attributes)})
            self.aws.send(source.config.queues[1], task.payload.decode(), htcgrid=facts)

    def publish_invalid(self, source: TaskSource) -> None:
        assert isinstance(source, SqsSource)
        self.aws.send(source.config.queues[1], "not JSON {")


class TestDynamodb(Throttling, ResultSinkContract):
    failures_have_events = True
    aws: Aws
    refused = ("dynamodb.BatchWriteItem", "dynamodb.PutItem", "dynamodb.UpdateItem")
    conditional = "failures"
    too_large = 6_000_000  # payloads are deflated; this one to more than inline_limit
    largest_payload = 200_000
    known_gaps: ClassVar[Mapping[str, str]] = {
        "test_a_result_of_the_same_generation_replaces_nothing": LAST_STAYS,
    }

    @pytest.fixture
    def sink(self, own_aws: Aws) -> ResultSink:
        self.aws = own_aws
        keys: Any = {"conditional": self.conditional, "check_stored": True, "inline_limit": 4096}
        config = DynamodbSink.Config(table=own_aws.table(), endpoint_url=own_aws.url, **keys)
        return DynamodbSink(config, Function())

    @pytest.fixture
    def missing(self, aws: Aws) -> Plugin:
        return DynamodbSink(DynamodbSink.Config(table="no-such-table", endpoint_url=aws.url), Function())

    def take_away(self, plugin: Plugin) -> None:
        self.aws.server.stop()


class TestDynamodbOfYoungAnswers(TestDynamodb):
    """The same with `conditional = "late"` and answers that are too young to be late: they are written many at a time."""

    test_a_service_that_is_frozen_is_unavailable = None  # type: ignore[assignment]  # the clients are the same
    test_failed_lists_failures_behind_megabytes_of_answers = None  # type: ignore[assignment]  # so is what reads them

    conditional = "late"
    known_gaps: ClassVar[Mapping[str, str]] = {
        **TestDynamodb.known_gaps,
        "test_a_late_answer_of_an_earlier_generation_replaces_nothing": "an answer as young as this is not late",
        "test_of_two_generations_in_one_put_the_later_one_stands": "an answer as young as this is not late",
    }

    @pytest.fixture(autouse=True)
    def young(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("htcgrid_aws.dynamodb.LATE_SECONDS", math.inf)


class TestDynamodbFirstStays(TestDynamodb):
    """The same where the first result of a task stays."""

    test_a_service_that_is_frozen_is_unavailable = None  # type: ignore[assignment]  # the clients are the same
    test_failed_lists_failures_behind_megabytes_of_answers = None  # type: ignore[assignment]  # so is what reads them

    conditional = "always"
    known_gaps: ClassVar[Mapping[str, str]] = {}


class TestS3(Throttling, ResultSinkContract):
    failures_have_events = True
    aws: Aws
    refused = ("s3.PutObject",)
    known_gaps: ClassVar[Mapping[str, str]] = {
        "test_a_result_of_the_same_generation_replaces_nothing": LAST_STAYS,
    }

    @pytest.fixture
    def sink(self, own_aws: Aws) -> ResultSink:
        self.aws = own_aws
        return S3Sink(S3Sink.Config(bucket=own_aws.bucket(), endpoint_url=own_aws.url), Function())

    @pytest.fixture
    def missing(self, aws: Aws) -> Plugin:
        return S3Sink(S3Sink.Config(bucket="no-such-bucket", endpoint_url=aws.url), Function())

    def take_away(self, plugin: Plugin) -> None:
        self.aws.server.stop()


class TestHtcGridSource(TaskSourceContract):
    grid: HtcGrid
    wait_factor = 2.0
    known_gaps: ClassVar[Mapping[str, str]] = {
        "test_put_accepts_a_task_that_receive_then_hands_out": SESSION_OF_ID,
        "test_a_session_is_pending_until_its_last_task_is_done": SESSION_OF_ID,
        "test_cancelling_a_session_leaves_the_others_alone": SESSION_OF_ID,
        "test_cancelling_again_names_the_same_tasks": SESSION_OF_ID,
        "test_put_keeps_ids_payloads_and_attributes": SESSION_OF_ID,
        "test_put_rejects_what_differs_in_its_attributes_or_comes_twice": SESSION_OF_ID,
        "test_a_queue_in_every_state_is_counted_right": SESSION_OF_ID,
        "test_a_session_in_every_state_is_cancelled_right": SESSION_OF_ID,
        "test_a_session_is_pending_while_its_task_is_delayed": SESSION_OF_ID,
        "test_a_session_is_pending_for_every_agent": SESSION_OF_ID,
        "test_sessions_are_told_apart_by_their_whole_names": SESSION_OF_ID,
        "test_more_tasks_than_a_page_are_put_and_cancelled": SESSION_OF_ID,
        "test_cancel_returns_tasks_with_their_session": SESSION_OF_ID,
        "test_put_knows_a_task_whose_attributes_come_in_another_order": SESSION_OF_ID,
        "test_cancel_names_each_task_once_and_none_that_is_done": "a task is done when its result is stored, not by its ack",
        "test_extend_keeps_every_lease_for_so_many_seconds_from_now": "HTC-Grid's agents keep a task for the time in its config",
        "test_a_part_of_a_second_counts": "HTC-Grid's agents keep a task for the time in its config",
        "test_a_lost_lease_in_a_batch_leaves_the_new_holder_its_task": "an extend is for the time in HTC-Grid's config, not for 0.1 s",
        "test_put_of_a_task_that_is_leased_changes_nothing": "a put that is repeated sends a pending task's message again",
    }
    _owners = itertools.count(1)

    @pytest.fixture
    def source(self, make_htc: Callable[..., HtcGrid], own_aws: Aws) -> TaskSource:
        self.own_aws = own_aws
        self.grid = make_htc("S3", lease=LEASE, visibility=LEASE, sqs_endpoint="")
        return self._agent()

    @pytest.fixture
    def missing(self, make_htc: Callable[..., HtcGrid], aws: Aws) -> Plugin:
        grid = make_htc("S3", tasks_queue_name="no-such-queue")
        config = HtcGridSource.Config(config_file=grid.config_file, endpoint_url=aws.url)
        return HtcGridSource(config, Function())

    def _agent(self) -> HtcGridSource:
        config = HtcGridSource.Config(
            config_file=self.grid.config_file, endpoint_url=self.own_aws.url, owner=f"agent-{next(self._owners)}"
        )
        return HtcGridSource(config, Function())

    def again(self, plugin: Any) -> Any:
        return self._agent()

    def publish(self, source: TaskSource, tasks: Sequence[Task]) -> None:
        for task in tasks:
            self.grid.put(f"{task.id}-input", task.payload)
            self.grid.enqueue([task.id], task.id.partition("_")[0])

    def publish_invalid(self, source: TaskSource) -> None:
        self.grid.aws.send(self.grid.queues[0], "not JSON {")

    def take_away(self, plugin: Plugin) -> None:
        self.own_aws.server.stop()

    @pytest.mark.parametrize("name", ["the names of htcgrid"])
    def test_attributes_arrive_as_they_were_sent(self, given: Any, name: str) -> None:
        """HTC-Grid's messages have no other attributes than session and priority."""
        (lease,) = self.take(given(Task("session_1", b"{}")), 1)
        assert dict(lease.task.attributes) == {"session_id": "session", "priority": "0"}


class TestHtcGridSink(ResultSinkContract):
    grid: HtcGrid
    wait_factor = 2.0
    many = 120
    known_gaps: ClassVar[Mapping[str, str]] = {
        "test_every_result_is_each_task_once": "results are listed by session alone, so that no report is made of all",
        "test_scan_gives_results_in_the_order_they_were_stored": "results are listed by session alone",
        "test_scan_goes_through_all_pages_and_sessions": "results are listed by session alone",
        "test_who_reads_holds_up_no_put": "results are listed by session alone",
        "test_several_large_answers_go_through_one_call": "results are listed by session alone",
        "test_two_may_read_at_once": "results are listed by session alone",
        "test_a_reading_may_be_left": "results are listed by session alone",
        "test_a_reader_sees_what_is_stored_after_it_was_opened": "results are listed by session alone",
        "test_a_reader_releases_all_that_it_took": "results are listed by session alone",
        "test_sessions_are_told_apart_by_their_whole_names": SESSION_OF_ID,
        "test_an_empty_store_is_told_as_empty": "results are listed by session alone",
        "test_any_text_in_an_attribute_is_stored_or_rejected_by_name": "HTC-Grid's tasks have no attributes but a session",
    }

    # It has no `scan` of all, as the rules above say; to write what would be missed takes a minute.
    test_scan_misses_none_of_eight_writers = None  # type: ignore[assignment]

    @pytest.fixture
    def sink(self, make_htc: Callable[..., HtcGrid], own_aws: Aws) -> ResultSink:
        grid = self.grid = make_htc("S3")
        self.aws = own_aws
        claimed: set[str] = set()
        claiming = threading.Lock()

        class Claimed(HtcGridSink):
            """Each task of a put has been claimed by this agent before, as the source does."""

            def put(self, results: Sequence[Result]) -> None:
                with claiming:
                    for task_id in {result.task.id for result in results} - claimed:
                        grid.write(grid.row(task_id, task_id, "processing", owner="me"))
                        claimed.add(task_id)
                super().put(results)

        config = HtcGridSink.Config(config_file=grid.config_file, endpoint_url=own_aws.url, owner="me")
        return Claimed(config, Function())

    @pytest.fixture
    def missing(self, make_htc: Callable[..., HtcGrid], aws: Aws) -> Plugin:
        grid = make_htc("S3", ddb_state_table="no-such-table")
        return HtcGridSink(HtcGridSink.Config(config_file=grid.config_file, endpoint_url=aws.url), Function())

    def take_away(self, plugin: Plugin) -> None:
        self.aws.server.stop()
