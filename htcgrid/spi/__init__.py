"""The plugin interface. `interfaces.py` is the specification: three abstract classes, on one page.

Everything that a plugin needs of it is imported from here: `from htcgrid.spi import TaskSource, Lease`.
"""

from htcgrid.spi import error_documents, limits
from htcgrid.spi.credentials import CREDENTIAL_VARIABLES, Credentials, CredentialSource, split_credentials
from htcgrid.spi.errors import HtcgridError, Rejected, Throttled, Unavailable
from htcgrid.spi.failure_kinds import FAILURES, Failure
from htcgrid.spi.function import RESERVED_ENVIRONMENT, Function
from htcgrid.spi.handler_output import STDOUT_OR_STDERR, HandlerOutput
from htcgrid.spi.interfaces import Invoker, ResultSink, TaskSource
from htcgrid.spi.keys import MAX_TEXT, Keys
from htcgrid.spi.observations import (
    Acked,
    AgentEnded,
    AgentStarted,
    AlreadyStored,
    Answered,
    DeadLettered,
    Ended,
    EnvironmentEnded,
    EnvironmentStarted,
    Extended,
    Lost,
    Observation,
    PluginAvailable,
    PluginUnavailable,
    Received,
    Retried,
    Returned,
    Sent,
    Started,
    Stored,
)
from htcgrid.spi.observer import AgentFigures, Observer, Observers
from htcgrid.spi.optional import Deployable, ImageBuilder, ResultStore, TaskQueue
from htcgrid.spi.plugin import SPI_VERSION, Plugin
from htcgrid.spi.stats import DeadTask, Holder, QueueStats, States, StoreStats, Usage
from htcgrid.spi.tracing import TraceContext
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
    "RESERVED_ENVIRONMENT",
    "SPI_VERSION",
    "STDOUT_OR_STDERR",
    "Acked",
    "AgentEnded",
    "AgentFigures",
    "AgentStarted",
    "AlreadyStored",
    "Answered",
    "Capability",
    "CredentialSource",
    "Credentials",
    "DeadLettered",
    "DeadTask",
    "Deployable",
    "Ended",
    "EnvironmentEnded",
    "EnvironmentStarted",
    "Extended",
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
    "Lost",
    "Observation",
    "Observer",
    "Observers",
    "Outcome",
    "Plugin",
    "PluginAvailable",
    "PluginUnavailable",
    "QueueStats",
    "Received",
    "Rejected",
    "Result",
    "ResultSink",
    "ResultStore",
    "Retried",
    "Returned",
    "Sent",
    "Started",
    "States",
    "StoreStats",
    "Stored",
    "Task",
    "TaskQueue",
    "TaskSource",
    "Throttled",
    "TraceContext",
    "Unavailable",
    "Unstarted",
    "Usage",
    "error_documents",
    "generation_of",
    "limits",
    "split_credentials",
]
