"""The `s3` sink: one object for each result, a JSON document named by the task's id."""

from __future__ import annotations

import time
import uuid
from itertools import islice
from typing import TYPE_CHECKING, Any

from pydantic import Field

from htcgrid.spi import Result, ResultSink
from htcgrid_aws import arns, iam, result_generations
from htcgrid_aws.aws_plugin import AwsPlugin
from htcgrid_aws.encryption import EncryptedConfig
from htcgrid_aws.parallel import each, raise_worst
from htcgrid_aws.s3_bucket import Bucket
from htcgrid_aws.stored_so_far import StoredSoFar

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from htcgrid.spi import Function


FAILED = ".failed/"
"""In the key of a failure's mark, between the prefix and the task's id."""


RUNS = ".runs/"
"""In the key of a run's document, between the prefix and the time."""


class S3Sink(AwsPlugin, ResultSink):
    """A later generation replaces a failure, and the last answer of the first generation replaces its other results.

    Objects of one `put` are stored at the same time, by up to `threads` threads.
    """

    class Config(EncryptedConfig):
        """Keys of `[sink]` with `plugin = "s3"`."""

        bucket: str = Field(description="name of the bucket")
        prefix: str = Field("results/", description="start of the keys; the task's id follows as it is")

    config: Config
    max_batch = 64
    lists_failures = True
    keeps_runs = True

    def __init__(self, config: Config, function: Function) -> None:
        super().__init__(config, function)
        self._so_far = StoredSoFar()

    def open(self) -> None:
        super().open()
        self._bucket = Bucket(self.client("s3"), self.config.bucket, self.config.prefix, self.config.encrypted())
        self._bucket.check()

    def put(self, results: Sequence[Result]) -> None:
        """Stores all it can, then raises `Unavailable` if some may be stored later, else `Rejected` for the rest."""
        by_task: dict[str, list[Result]] = {}
        for result in self._so_far.left(results):
            by_task.setdefault(result.task.id, []).append(result)
        answers = each(self.pool, self._store, list(by_task.values()))
        self._so_far.note([(result, answer) for several, answer in answers for result in several])
        raise_worst(answer for _, answer in answers)

    def get(self, task_ids: Sequence[str]) -> Mapping[str, Result]:
        found = each(self.pool, self._load, list(dict.fromkeys(task_ids)))
        raise_worst(answer for _, answer in found)
        return {task_id: answer for task_id, answer in found if isinstance(answer, Result)}

    def permissions(self) -> Mapping[str, Mapping[str, Any] | str]:
        """The smallest IAM policies for the bucket."""
        bucket, prefix = arns.bucket(self.config.bucket), self.config.prefix
        return iam.policies(
            iam.Resources(
                bucket=bucket,
                inputs_prefix=None,
                results_prefix=prefix,
                every_result_in_bucket=True,
                keys=self.config.keys(),
            )
        )

    def failed(self) -> Iterator[Result]:
        """Finds failures by their marks, which are empty objects; a result that is not a failure any more is left out."""
        names = self._bucket.names(FAILED)
        while some := list(islice(names, self.max_batch)):
            found = each(self.pool, self._load, some)
            raise_worst(answer for _, answer in found)
            yield from (
                answer for _, answer in found if isinstance(answer, Result) and answer.outcome.failure is not None
            )

    def has_failed(self) -> bool:
        return any(True for _ in self.failed())

    def add_run(self, document: bytes) -> None:
        """Stores one object for each run; its key has the time when the run ended."""
        name = f"{RUNS}{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())}-{uuid.uuid4().hex[:12]}.json"
        self._bucket.put(self._bucket.key(name, name), document)

    def runs(self) -> Iterator[bytes]:
        """In the order in which they ended."""
        for name in self._bucket.names(RUNS):
            if (document := self._bucket.get(self._bucket.key(RUNS + name, name))) is not None:
                yield document

    def _store(self, results: Sequence[Result]) -> None:
        for result in results:
            task_id, key = result.task.id, self._bucket.key(result.task.id, result.task.id)
            if result.outcome.failure is not None:
                # The mark is stored first: a mark without a failure is skipped, but a failure without a mark is never found.
                self._bucket.put(self._bucket.key(FAILED + task_id, task_id), b"")
            result_generations.store(self._bucket, key, result, last_answer_stays=True)

    def _load(self, task_id: str) -> Result | None:
        key = self._bucket.key(task_id, task_id)
        document = self._bucket.get(key)
        return None if document is None else result_generations.read(self._bucket, key, task_id, document)
