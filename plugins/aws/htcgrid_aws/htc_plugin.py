"""The base of HTC-Grid's source and sink: it opens HTC-Grid's file, state table and data plane."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from htcgrid.spi import Rejected
from htcgrid_aws import arns, htc_config, iam
from htcgrid_aws.aws_plugin import AwsPlugin
from htcgrid_aws.dynamodb_table import Table
from htcgrid_aws.htc_config import HtcGridConfig
from htcgrid_aws.htc_data import DataPlane, connect
from htcgrid_aws.htc_states import StateTable
from htcgrid_aws.s3_bucket import Bucket

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from htcgrid.spi import Function


class HtcGridPlugin(AwsPlugin):
    class Config(HtcGridConfig):
        """htcgrid's own keys; all others are in HTC-Grid's file."""

    config: Config

    def __init__(self, config: Config, function: Function) -> None:
        super().__init__(config, function)
        self._data: DataPlane | None = None

    def open(self) -> None:
        super().open()
        self.grid = htc_config.grid_of(self.config)
        region = self.grid.region
        self.table = Table(self.client("dynamodb", region=region), self.grid.ddb_state_table, self.usage_counter)
        self.table.check()
        self.states = StateTable(self.table, self.owner)
        self._data = connect(self.config, self.grid, self._bucket(region))

    def close(self) -> None:
        if self._data:
            self._data.close()
            self._data = None
        super().close()

    @property
    def owner(self) -> str:
        """The name of this agent in the state table."""
        return self.config.owner or self.agent

    @property
    def data(self) -> DataPlane:
        if self._data is None:
            raise RuntimeError(f"{type(self).__name__} is used before open() or after close()")
        return self._data

    def advise(self, attempts: int) -> Iterator[str]:
        """Warn if the pods of `htcgrid deploy` would not have a file that the config names."""
        if self.config.config_file:
            yield (
                "config_file is a file of this machine. For `htcgrid deploy` write its keys under `grid` instead, as "
                "`htcgrid init --from-htc-grid` does: they are sent to the pods."
            )

    def permissions(self) -> Mapping[str, Mapping[str, Any] | str]:
        """The smallest IAM policies for HTC-Grid's queues, state table and bucket, for source and sink."""
        grid = htc_config.grid_of(self.config)
        return iam.policies(
            iam.Resources(
                queues=tuple(arns.queue(name, grid.region) for name in grid.queues),
                watchdog=self.config.watchdog_seconds > 0,
                state_table=arns.table(grid.ddb_state_table, grid.region),
                data_bucket=arns.bucket(grid.s3_bucket) if "S3" in grid.grid_storage_service else "",
                keys=self.config.keys(grid.s3_kms_key_id, grid.region) if "S3" in grid.grid_storage_service else (),
            )
        )

    def _bucket(self, region: str) -> Bucket | None:
        if self.grid.grid_storage_service == "REDIS":
            return None
        if not self.grid.s3_bucket:
            message = f"{self.config.origin}: grid_storage_service is {self.grid.grid_storage_service}: set s3_bucket"
            raise Rejected(message)
        return Bucket(
            self.client("s3", region=region),
            self.grid.s3_bucket,
            encrypted=self.config.encrypted(self.grid.s3_kms_key_id),
        )
