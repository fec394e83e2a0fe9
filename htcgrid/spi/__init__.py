"""The plugin interface. `interfaces.py` is the specification: three abstract classes, on one page.

Everything that a plugin needs of it is imported from here: `from htcgrid.spi import TaskSource, Lease`.
"""

from htcgrid.spi import error_documents, limits
from htcgrid.spi.credentials import CREDENTIAL_VARIABLES, Credentials, CredentialSource, split_credentials
from htcgrid.spi.errors import HtcgridError, Rejected, Unavailable
from htcgrid.spi.failure_kinds import FAILURES, Failure
from htcgrid.spi.function import RESERVED_ENVIRONMENT, Function
from htcgrid.spi.handler_output import NOT_TOLD_APART, HandlerOutput
from htcgrid.spi.interfaces import Invoker, ResultSink, TaskSource
from htcgrid.spi.keys import MAX_TEXT, Keys
from htcgrid.spi.optional import Deployable, ImageBuilder, ResultStore, TaskQueue
from htcgrid.spi.plugin import SPI_VERSION, Plugin
from htcgrid.spi.stats import DeadTask, Holder, QueueStats, States, StoreStats, Usage
from htcgrid.spi.values import (
    GENERATION,
    Capability,
    FailureKind,
    Lease,
    Outcome,
    Result,
    Task,
    Unstarted,
    generation_of,
)

__all__ = [
    "CREDENTIAL_VARIABLES",
    "FAILURES",
    "GENERATION",
    "MAX_TEXT",
    "NOT_TOLD_APART",
    "RESERVED_ENVIRONMENT",
    "SPI_VERSION",
    "Capability",
    "CredentialSource",
    "Credentials",
    "DeadTask",
    "Deployable",
    "Failure",
    "FailureKind",
    "Function",
    "HandlerOutput",
    "Holder",
    "HtcgridError",
    "ImageBuilder",
    "Invoker",
    "Keys",
    "Lease",
    "Outcome",
    "Plugin",
    "QueueStats",
    "Rejected",
    "Result",
    "ResultSink",
    "ResultStore",
    "States",
    "StoreStats",
    "Task",
    "TaskQueue",
    "TaskSource",
    "Unavailable",
    "Unstarted",
    "Usage",
    "error_documents",
    "generation_of",
    "limits",
    "split_credentials",
]
