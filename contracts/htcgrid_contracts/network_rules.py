"""A source or a sink whose service is reached over a network: connections that break, and a service that is silent."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from htcgrid.spi import Plugin, Unavailable

from htcgrid_contracts.common import PluginContract, not_asked
from htcgrid_contracts.tcp_relay import TcpRelay, service_address

P = TypeVar("P", bound=Plugin)

FROZEN_SECONDS = 30
"""How long a call may take where nothing answers; one of a plane so much longer than its timeout."""


class NetworkRules(PluginContract):
    """Asked where the config has the address of a service, with a port, that is not encrypted."""

    def calls_through(self, plugin: Any) -> Mapping[str, Callable[[], object]]:
        """Calls of this plugin, which is open, by their names; the first two are the ones that matter most."""
        raise NotImplementedError

    def test_a_connection_that_broke_is_unavailable(self, plugin: Plugin) -> None:
        """When a connection breaks, a call must work over another one or raise `Unavailable`, and the next calls must work: services
        close connections, and the networks between do. Read: spi.Unavailable."""
        with through_relay(plugin) as (opened, relay):
            for name, call in self.calls_through(opened).items():
                relay.cut()
                time.sleep(0.02)
                self.says_unavailable(plugin, name, call, "over a broken connection")
                self.comes_back(lambda: self.use(opened), 10, "connection")

    def test_a_service_that_is_frozen_is_unavailable(self, plugin: Plugin) -> None:
        """Where the service accepts connections and answers nothing, a call must raise `Unavailable` in the end: libraries wait for
        ever by default, and the agent with them. Read: spi.Unavailable."""
        with through_relay(plugin) as (opened, relay):
            for name, call in list(self.calls_through(opened).items())[:2]:
                with relay.silent():
                    error = self._ended(name, call)
                self.keeps_secrets(plugin, f"the error of `{name}` while the service was silent", str(error))
                assert isinstance(error, Unavailable), (
                    f"the service was silent, and `{name}` ended with {error!r}; it is Unavailable"
                )
                self.comes_back(lambda: self.use(opened), 20, "service")

    def _ended(self, name: str, call: Callable[[], object]) -> Exception | None:
        """What the call raises, within its time."""
        ended: list[Exception | None] = []

        def work() -> None:
            try:
                call()
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the verdict
                ended.append(error)
            else:
                ended.append(None)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(FROZEN_SECONDS)
        assert ended, f"the service was silent, and `{name}` had not ended after {FROZEN_SECONDS} s"
        return ended[0]


@contextmanager
def through_relay(plugin: P) -> Iterator[tuple[P, TcpRelay]]:
    """A plugin of the same config, opened, that reaches its service through a relay."""
    found = service_address(plugin)
    if found is None:
        not_asked("no key of the config is the address of a service, with a port and not encrypted")
    with TcpRelay(found.host, found.port) as relay:
        made = type(plugin)(plugin.config.model_copy(update=found.at("127.0.0.1", relay.port)), plugin.function)
        made.open()
        try:
            yield made, relay
        finally:
            with suppress(Unavailable):
                made.close()
