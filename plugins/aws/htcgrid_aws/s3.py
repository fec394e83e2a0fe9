"""The `s3` sink: one object a result, a JSON document named by the task's id."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from pydantic import Field

from htcgrid.spi import Rejected, Result, ResultSink, Unavailable, generation_of
from htcgrid_aws import arns, iam, result_documents
from htcgrid_aws.aws_plugin import AwsPlugin
from htcgrid_aws.encryption import EncryptedConfig
from htcgrid_aws.parallel import each, raise_worst
from htcgrid_aws.s3_bucket import Bucket

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


FAILED = ".failed/"
"""After the prefix and before the task's id: the key of the mark of a failure."""

_TRIES = 3


class S3Sink(AwsPlugin, ResultSink):
    """The last answer of a task stays; a failure replaces nothing but an earlier generation's failure. Objects of one `put` are stored side by side, `threads` at a time."""

    class Config(EncryptedConfig):
        """Keys of `[sink]` with `plugin = "s3"`."""

        bucket: str = Field(description="name of the bucket")
        prefix: str = Field("results/", description="start of the keys; the task's id follows as it is")

    config: Config
    max_batch = 64
    lists_failures = True

    def open(self) -> None:
        super().open()
        self._bucket = Bucket(self.client("s3"), self.config.bucket, self.config.prefix, self.config.encrypted())
        self._bucket.check()

    def put(self, results: Sequence[Result]) -> None:
        """Stores all it can, then raises `Unavailable` if some may be stored later, else `Rejected` for the rest."""
        last = {result.task.id: result for result in results}
        raise_worst(answer for _, answer in each(self.pool, self._store, list(last.values())))

    def get(self, task_ids: Sequence[str]) -> Mapping[str, Result]:
        found = each(self.pool, self._load, list(dict.fromkeys(task_ids)))
        raise_worst(answer for _, answer in found)
        return {task_id: answer for task_id, answer in found if isinstance(answer, Result)}

    def permissions(self) -> Mapping[str, Mapping[str, Any] | str]:
        """The least IAM policies for the bucket."""
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
        """By the empty objects beside the results that were made for failures; each is looked at whether it still is one."""
        names = self._bucket.names(FAILED)
        while some := list(islice(names, self.max_batch)):
            found = each(self.pool, self._load, some)
            raise_worst(answer for _, answer in found)
            yield from (
                answer for _, answer in found if isinstance(answer, Result) and answer.outcome.failure is not None
            )

    def has_failed(self) -> bool:
        return any(True for _ in self.failed())

    def _store(self, result: Result) -> None:
        task_id, key = result.task.id, self._bucket.key(result.task.id, result.task.id)
        document = result_documents.write(result)
        generation = generation_of(result.task)
        if result.outcome.failure is None and not generation:
            self._bucket.put(key, document)
            return
        if result.outcome.failure is not None:
            # First: a mark without its failure is passed over, a failure without its mark would not be found.
            self._bucket.put(self._bucket.key(FAILED + task_id, task_id), b"")
        etag: str | None = None
        for _ in range(_TRIES):
            if self._bucket.put_where(key, document, etag):
                return
            there, etag = self._bucket.get_tagged(key)
            if there is not None:
                before = result_documents.read(there)
                if before.outcome.failure is None or generation_of(before.task) >= generation:
                    return
        raise Unavailable(f"{self._bucket.address(key)} is being written by others; put again", retry_after=1)

    def _load(self, task_id: str) -> Result | None:
        key = self._bucket.key(task_id, task_id)
        document = self._bucket.get(key)
        if document is None:
            return None
        try:
            return result_documents.read(document)
        except (ValueError, KeyError, TypeError) as error:
            message = f"{self._bucket.address(key)} is not a result that htcgrid wrote ({error}); name another prefix"
            raise Rejected(message, [task_id]) from error
