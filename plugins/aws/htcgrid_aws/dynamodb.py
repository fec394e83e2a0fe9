"""The `dynamodb` sink: one item a result, in a table keyed by `task_id`."""

from __future__ import annotations

import logging
import time
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from htcgrid.spi import Function, Rejected, Result, ResultSink, StoreStats, Unavailable, generation_of
from htcgrid_aws import arns, iam, result_documents, result_generations, result_items
from htcgrid_aws.aws_plugin import AwsPlugin
from htcgrid_aws.dynamodb_table import KEY, LARGEST_ITEM, LARGEST_KEY, READ_BATCH, Item, Table
from htcgrid_aws.encryption import EncryptedConfig
from htcgrid_aws.parallel import each, raise_worst
from htcgrid_aws.run_items import RunItems
from htcgrid_aws.s3_bucket import Bucket
from htcgrid_aws.stored_so_far import StoredSoFar

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from htcgrid.spi import Task


log = logging.getLogger(__name__)

LATE_SECONDS = 20.0
"""With `conditional = "late"`, an answer whose task began longer ago is written alone, with a condition."""


class DynamodbSink(AwsPlugin, ResultSink):
    """Results larger than an item go to S3 if a bucket is set, in the format of the `s3` sink."""

    class Config(EncryptedConfig):
        """Keys of `[sink]` with `plugin = "dynamodb"`."""

        table: str = Field(description="name of the table; its partition key is task_id (S), and it has no sort key")
        conditional: Literal["failures", "always", "late"] = Field(
            "failures",
            description='"failures": before a redrive the last answer of a task stays, a failure replaces only the failure of an '
            'earlier generation, and nothing replaces what a later generation has stored. "always": the first result of a task '
            'stays. "late": as "failures", but answers of tasks that began less than 20 s ago go 25 a request, which is three '
            "times as fast and has no condition: such an answer of an agent that was suspended can replace one of a redrive",
        )
        check_stored: bool = Field(
            False,
            description="whether to check before a task runs if it has a result already, at one read for each task",
        )
        bucket: str = Field("", description="S3 bucket for results larger than inline_limit")
        prefix: str = Field("results/", description="start of the keys of those results")
        inline_limit: int = Field(
            LARGEST_ITEM,
            ge=1024,
            le=LARGEST_ITEM,
            description="the largest item in bytes; above 8,000, S3 costs less than DynamoDB",
        )

    config: Config
    max_batch = 100
    """With this many, all threads are busy most of the time: each result takes a request."""
    lists_failures = True
    keeps_runs = True

    def __init__(self, config: Config, function: Function) -> None:
        super().__init__(config, function)
        self._bucket: Bucket | None = None
        self._so_far = StoredSoFar()
        self._clock_offset = 0.0

    def open(self) -> None:
        super().open()
        self._clock_offset = time.time() - _since_boot()
        self._table = Table(self.client("dynamodb"), self.config.table, self.usage_counter)
        self._table.check()
        if self.config.bucket:
            self._bucket = Bucket(self.client("s3"), self.config.bucket, self.config.prefix, self.config.encrypted())
            self._bucket.check()

    def put(self, results: Sequence[Result]) -> None:
        """Stores all it can, then raises `Unavailable` if some may be stored later, else `Rejected` for the rest."""
        written = each(self.pool, self._item, self._so_far.left(results))
        ready = [(result, item) for result, item in written if isinstance(item, dict)]
        single: dict[str, list[tuple[Result, Item]]] = {}
        batch: dict[str, Item] = {}
        for result, item in ready:
            if self._goes_by_itself(result):
                single.setdefault(result.task.id, []).append((result, item))
            else:
                batch[result.task.id] = item
        outcomes: dict[int, tuple[Result, object]] = {id(result): (result, item) for result, item in written}
        if batch and (left := set(self._table.write_batch(list(batch.values())))):
            message = (
                f"table {self.config.table} did not store {len(left)} of {len(batch)} results: throttled; put again"
            )
            untaken = Unavailable(message)
            outcomes |= {id(result): (result, untaken) for result, _ in ready if result.task.id in left}
        for several, answer in each(self.pool, self._write_if_they_stand, list(single.values())):
            outcomes |= {id(result): (result, answer) for result, _ in several}
        self._so_far.note(list(outcomes.values()))
        raise_worst(answer for _, answer in outcomes.values())

    def stored(self, tasks: Sequence[Task]) -> Collection[str]:
        """The table is read only with `check_stored`."""
        if not self.config.check_stored:
            return ()
        generations = {task.id: generation_of(task) for task in tasks}
        found = self._table.read(list(generations), only=f"{KEY}, failure, generation", consistent=True)
        return {
            item[KEY]["S"]
            for item in found
            if "failure" not in item or int(item.get("generation", {}).get("N", 0)) >= generations[item[KEY]["S"]]
        }

    def failed(self) -> Iterator[Result]:
        """Reads the whole table, one megabyte in each request, and the large results in S3."""
        items_ = self._table.scan("attribute_exists(failure)", {})
        while some := list(islice(items_, READ_BATCH)):
            results = each(self.pool, self._result, some)
            raise_worst(answer for _, answer in results)
            yield from (answer for _, answer in results if isinstance(answer, Result))

    def has_failed(self) -> bool:
        return any(True for _ in self._table.scan("attribute_exists(failure)", {}))

    def get(self, task_ids: Sequence[str]) -> Mapping[str, Result]:
        found = list(self._table.read(task_ids))
        results = each(self.pool, self._result, found)
        raise_worst(answer for _, answer in results)
        return {answer.task.id: answer for _, answer in results if isinstance(answer, Result)}

    def stats(self) -> StoreStats:
        note = "as DynamoDB last counted the table's items, which it does about every six hours"
        return StoreStats(self._table.count(), note=note)

    def add_run(self, document: bytes) -> None:
        RunItems(self._table).add(document)

    def runs(self) -> Iterator[bytes]:
        return RunItems(self._table).all()

    def permissions(self) -> Mapping[str, Mapping[str, Any] | str]:
        """The least IAM policies for the table and the bucket."""
        return iam.policies(
            iam.Resources(
                table=arns.table(self.config.table, self.config.region),
                batches_results=self.config.conditional == "late",
                bucket=arns.bucket(self.config.bucket),
                inputs_prefix=None,
                results_prefix=self.config.prefix,
                keys=self.config.keys(),
            )
        )

    def _item(self, result: Result) -> Item:
        task_id = result.task.id
        if not 0 < len(task_id.encode()) <= LARGEST_KEY:
            message = f"task {task_id[:80]!r}...: DynamoDB accepts ids of 1 to {LARGEST_KEY} bytes; use shorter ids"
            raise Rejected(message, [task_id])
        try:
            item = result_items.write(result)
        except UnicodeEncodeError as error:
            message = (
                f"task {task_id}: DynamoDB stores Unicode only, and its attributes have other text: {error.reason}"
            )
            raise Rejected(message, [task_id]) from None
        if "event" in item and self._bucket is None and result_items.too_large(item, self.config.inline_limit):
            item.pop("event")
            log.warning(
                "the event of task %s is too large to be kept with its failure, so `redrive` cannot run it", task_id
            )
        if not result_items.too_large(item, self.config.inline_limit):
            return item
        if self._bucket is None:
            message = (
                f"task {task_id}: its result of {len(result.outcome.payload)} bytes is larger than an item of table "
                f"{self.config.table} may be ({self.config.inline_limit}); set bucket to an S3 bucket for large results"
            )
            raise Rejected(message, [task_id])
        key = self._bucket.key(task_id, task_id)
        stands = result_generations.store(self._bucket, key, result, last_answer_stays=self._last_answer_stays)
        return result_items.write_reference(stands, self._bucket.address(key))

    @property
    def _last_answer_stays(self) -> bool:
        return self.config.conditional != "always"

    def _goes_by_itself(self, result: Result) -> bool:
        """Whether it must be written with a condition, which a request of many results cannot have."""
        if self.config.conditional != "late" or _failed(result) or generation_of(result.task):
            return True
        return not 0 <= self._clock_offset + _since_boot() - result.outcome.started < LATE_SECONDS

    def _write_if_they_stand(self, results: Sequence[tuple[Result, Item]]) -> None:
        """Write the results of one task, one after the other."""
        for result, item in results:
            self._write_if_it_stands(result, item)

    def _write_if_it_stands(self, result: Result, item: Item) -> bool:
        """Write a result if the rule of `result_generations.replaces` allows it; returns whether it was written."""
        if generation := generation_of(result.task):
            return self._table.write_where(item, _STANDS.format(_OLDER), {":generation": {"N": str(generation)}})
        if self._last_answer_stays and not _failed(result):
            return self._table.write_where(item, _FIRST_GENERATION)
        return self._table.write_new(item)

    def _result(self, item: Item) -> Result:
        task_id = item[KEY]["S"]
        if "s3" not in item:
            with result_documents.read_from(f"the item of task {task_id} in table {self.config.table}", task_id):
                return result_items.read(item)
        address = item["s3"]["S"]
        key = self._bucket.key_of(address) if self._bucket else None
        if self._bucket is None or key is None:
            message = f"task {task_id}: its result is at {address}; set bucket and prefix here to the same values as for the agents"
            raise Rejected(message, [task_id])
        document = self._bucket.get(key)
        if document is None:
            raise Rejected(f"task {task_id}: its result {address} is no longer in S3", [task_id])
        return result_generations.read(self._bucket, key, task_id, document)


_STANDS = f"attribute_not_exists({KEY}) OR (attribute_exists(failure) AND {{}})"
_FIRST_GENERATION = "attribute_not_exists(generation)"
_OLDER = "(attribute_not_exists(generation) OR generation < :generation)"


def _since_boot() -> float:
    """A clock that also counts while the machine sleeps, and that cannot be set."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _failed(result: Result) -> bool:
    return result.outcome.failure is not None
