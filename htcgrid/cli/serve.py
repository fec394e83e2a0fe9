import signal
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue

import click

from htcgrid.agent.policy import Rules
from htcgrid.cli.main import DONE
from htcgrid.cli.options import grid_options, read_grid
from htcgrid.config import ConfigError
from htcgrid.service.function import ServedFunction
from htcgrid.service.http import InvokeServer


@click.command()
@grid_options
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="The address to listen on. There is no authentication."
)
@click.option(
    "--port", default=9001, show_default=True, help="The port to listen on; 0 takes a free one and prints it."
)
@click.option(
    "--waiting", default=100, show_default=True, help="Calls that may wait for a place, a function; 429 beyond."
)
def command(file: Path | None, plane: str | None, pairs: tuple[str, ...], host: str, port: int, waiting: int) -> int:
    """Serve AWS's Invoke API over the plane, so that any AWS SDK can call the functions.

    Serves [function] and every one of [functions] by its name. Calls with X-Amz-Invocation-Type: Event
    are kept in memory until they ran.

    \b
    htcgrid serve --port 9001
    aws lambda invoke --endpoint-url http://127.0.0.1:9001 --function-name pricing out.json
    """
    grid = read_grid(file, plane, pairs)
    with ExitStack() as stack:
        functions: dict[str, ServedFunction] = {}
        for function in grid.functions():
            invoker = stack.enter_context(grid.serving(function).invoker())
            functions[function.function_name] = ServedFunction(invoker, waiting, _say)
        try:
            server = stack.enter_context(InvokeServer((host, port), functions))
        except OSError as error:
            raise ConfigError(f"--host {host} --port {port}: {error.strerror}. Choose another port.") from None
        _serve(server, functions)
    return DONE


def _serve(server: InvokeServer, functions: dict[str, ServedFunction]) -> None:
    # Not an event, which a handler must not set while it interrupts that event's own `wait` or `set`.
    stops: SimpleQueue[None] = SimpleQueue()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stops.put(None))
    for function in functions.values():
        function.start()
    thread = threading.Thread(target=server.serve_forever, name="serve", daemon=True)
    thread.start()
    host, port = server.server_address[:2]
    _say(f"Serving {', '.join(functions)} on http://{host!s}:{port}")
    stops.get()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)  # a second one ends it at once, calls and all
    if server.under_way:
        _say(
            f"Calls under way: {server.under_way}. They have {Rules().grace:g} s; the same signal again stops them at once."
        )
    server.end(Rules().grace)
    for name, function in functions.items():
        left = function.stop()
        if left:
            _say(f"{name}: {left} events were not run.")


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
