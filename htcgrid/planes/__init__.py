"""The toolkit for compute planes. Plugins import `htcgrid.spi` and `htcgrid.planes`, and nothing else of htcgrid.

It is versioned with the plugin interface: the names in `__all__` change only with `SPI_VERSION`.
"""

from htcgrid.planes import architectures, code_archive, container_entry, exit_status, requirements
from htcgrid.planes.pooled import PooledInvoker
from htcgrid.planes.relay import Relay
from htcgrid.planes.relay_streams import CommandStream, SocketStream, Stream
from htcgrid.planes.remote import RemoteInvoker
from htcgrid.planes.sidecar_pool import SidecarInvoker
from htcgrid.planes.sidecar_sandbox import Termination, corrected_by
from htcgrid.planes.unexplained import UnexplainedExit, explained
from htcgrid.runtime import code_folder, identity, layers, trace
from htcgrid.runtime.api import ApiEnvironment
from htcgrid.runtime.api_server import listen
from htcgrid.runtime.calls import Calls
from htcgrid.runtime.code_files import DEFAULTS, PREBUILT, collect
from htcgrid.runtime.context import client_context
from htcgrid.runtime.environment import ExecutionEnvironment, State
from htcgrid.runtime.parsing import parsed
from htcgrid.runtime.pool import EnvironmentPool
from htcgrid.runtime.reports import log_lines, log_result
from htcgrid.runtime.rie import EmulatorSandbox, RieEnvironment
from htcgrid.runtime.sandbox import Sandbox, SandboxedEnvironment
from htcgrid.runtime.variables import this_python, variables

__all__ = [
    "DEFAULTS",
    "PREBUILT",
    "ApiEnvironment",
    "Calls",
    "CommandStream",
    "EmulatorSandbox",
    "EnvironmentPool",
    "ExecutionEnvironment",
    "PooledInvoker",
    "Relay",
    "RemoteInvoker",
    "RieEnvironment",
    "Sandbox",
    "SandboxedEnvironment",
    "SidecarInvoker",
    "SocketStream",
    "State",
    "Stream",
    "Termination",
    "UnexplainedExit",
    "architectures",
    "client_context",
    "code_archive",
    "code_folder",
    "collect",
    "container_entry",
    "corrected_by",
    "exit_status",
    "explained",
    "identity",
    "layers",
    "listen",
    "log_lines",
    "log_result",
    "parsed",
    "requirements",
    "this_python",
    "trace",
    "variables",
]
