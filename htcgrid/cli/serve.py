import ipaddress
import signal
import socket
import sys
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import click

from htcgrid.cli.grid_options import grid_options, read_grid
from htcgrid.cli.handler_lines import handler_lines, logs_option, tell_what_is_left_out, with_logs
from htcgrid.cli.main import DONE
from htcgrid.config import ConfigError
from htcgrid.logs.opening import end_with
from htcgrid.service.events import Events, event_options
from htcgrid.service.guard import Guard, read_keys, read_token
from htcgrid.service.http import InvokeServer
from htcgrid.service.invoke_api import InvokeApi
from htcgrid.service.room import Room
from htcgrid.service.served_function import ServedFunction
from htcgrid.service.text import one_line
from htcgrid.spi import HandlerOutput
from htcgrid.stop_request import StopRequest, stop_signals

_STOP_SECONDS = 3.0
"""The time after the grace time in which calls are stopped and answered, before their plane is closed."""
_LOOK_SECONDS = 0.1


@click.command()
@grid_options
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="The address to listen on. One that other machines can reach needs --keys-file or --token-file.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=9001,
    show_default=True,
    help="The port to listen on; 0 takes a free one and prints it.",
)
@click.option(
    "--keys-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Keys that may call, with the signature of every AWS SDK (SigV4); a file like ~/.aws/credentials.",
)
@click.option(
    "--token-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A token that may call, sent as Authorization: Bearer TOKEN.",
)
@click.option(
    "--waiting",
    type=click.IntRange(min=0),
    default=100,
    show_default=True,
    help="How many calls may wait, for each function; further ones get 429.",
)
@click.option(
    "--events",
    type=click.IntRange(min=0),
    default=10_000,
    show_default=True,
    help="How many events are kept until they have run, for each function; further ones get 429.",
)
@click.option(
    "--hold-mb",
    type=click.IntRange(min=16),
    default=256,
    show_default=True,
    help="MiB of requests, events and answers held at once, at most half of it events; further calls get 429.",
)
@logs_option
def command(
    file: Path | None,
    plane: str | None,
    pairs: tuple[str, ...],
    host: str,
    port: int,
    keys_file: Path | None,
    token_file: Path | None,
    waiting: int,
    events: int,
    hold_mb: int,
    logs: str | None,
) -> int:
    """Serve AWS's Invoke API over the plane, so that any AWS SDK can call the functions.

    Serves [function] and every one of [functions] by its name. Calls with X-Amz-Invocation-Type: Event
    are kept in memory until they have run: up to three times if they fail, unless [agent] attempts says otherwise.

    \b
    htcgrid serve --port 9001
    aws lambda invoke --endpoint-url http://127.0.0.1:9001 --function-name pricing out.json
    """
    guard = Guard(
        token=read_token(token_file) if token_file else "",
        secrets=read_keys(keys_file) if keys_file else {},
        host=host,
    )
    family, address = _address(host, port)
    if not guard.asks_for_keys and not ipaddress.ip_address(address[0].partition("%")[0]).is_loopback:
        raise ConfigError(
            f"--host {host}: other machines can reach this address, and anybody who reaches it could run your functions. "
            "Give --keys-file (SigV4, which every AWS SDK signs with) or --token-file, or listen on 127.0.0.1."
        )
    grid = read_grid(file, plane, with_logs(pairs, logs))
    room = Room(hold_mb << 20)
    options = grid.settings.agent
    of_events = event_options(options)
    with ExitStack() as stack:
        functions: dict[str, ServedFunction] = {}
        observers = stack.enter_context(grid.observers())
        lines = stack.enter_context(handler_lines(grid))
        events_room = Room((hold_mb << 20) // 2, around=room)
        for function in grid.functions():
            invoker = stack.enter_context(grid.serving(function).invoker(observers, lines))
            tell_what_is_left_out(invoker)
            queue = Events(invoker, of_events, events, events_room, _say)
            functions[function.function_name] = ServedFunction(invoker, waiting, queue)
        try:
            server = stack.enter_context(InvokeServer(family, address, InvokeApi(functions, guard, room), _say))
        except OSError as error:
            raise ConfigError(f"--host {host} --port {port}: {error.strerror}. Choose another port.") from None
        _serve(server, functions, options.grace, lines)
    return DONE


def _address(host: str, port: int) -> tuple[int, tuple[str, int]]:
    """The name is resolved once, so the address that is checked is the one that is bound."""
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"--host {host!r}: {error}. Give an address or a name of this machine.") from None
    family, _, _, _, address = min(found, key=lambda each: each[0] != socket.AF_INET)
    return family, address  # type: ignore[return-value]


def _serve(server: InvokeServer, functions: dict[str, ServedFunction], grace: float, lines: HandlerOutput) -> None:
    stop, numbers = StopRequest(), stop_signals()
    stop.make_on(numbers)
    for function in functions.values():
        function.start()
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="serve", daemon=True)
    thread.start()
    host, port = server.server_address[:2]
    shown = f"[{host!s}]" if ":" in str(host) else str(host)
    _say(f"Serving {', '.join(one_line(name) for name in functions)} on http://{shown}:{port}")
    stop.wait()
    deadline = time.monotonic() + grace
    end_with(lines, lambda: deadline)
    for number in numbers:
        signal.signal(number, signal.SIG_DFL)  # a second signal ends the process at once
    for function in functions.values():
        function.close()
    events = sum(function.events for function in functions.values())
    if server.under_way or events:
        what = f"Calls under way: {server.under_way}." + f" Events to run: {events}." * bool(events)
        _say(f"{what} They have {grace:g} s; send the same signal again to stop them at once.")
    server.end(grace)
    for name, function in functions.items():
        left = function.stop(max(0.0, deadline - time.monotonic()))
        if left:
            _say(f"{one_line(name)}: {left}.")
    end = time.monotonic() + _STOP_SECONDS
    while any(list(map(ServedFunction.cancel, functions.values()))) and time.monotonic() < end:
        server.end(_LOOK_SECONDS)  # again and again, since a call may just have begun
    server.end(_LOOK_SECONDS)


def _say(message: str) -> None:
    with suppress(OSError):  # the service continues when the log is full or gone
        print(one_line(message), file=sys.stderr, flush=True)
