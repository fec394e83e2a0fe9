"""A service that cannot be reached at `open`, or that was away and is back."""

import threading
import time
from contextlib import closing, suppress

from htcgrid.spi import HtcgridError, Plugin, Rejected

from htcgrid_contracts.common import HeldResources, PluginContract, in_threads, not_asked


class RecoveryRules(PluginContract):
    """Asked of sources and sinks. Planes have rules of their own, since some clients keep a thread."""

    def test_an_open_that_fails_leaves_nothing(self, missing: Plugin) -> None:
        """An `open` that fails must leave no thread, file or process behind. The agent repeats `open` while the service
        is unavailable. Read: spi.Plugin.open, spi.Plugin.close."""

        def fail() -> None:
            with suppress(HtcgridError), type(missing)(missing.config, missing.function):
                pass

        fail()  # what an SDK loads once and keeps is no leak
        before = HeldResources.now()
        for _ in range(2):
            fail()
        self.nothing_is_held(before, "twice an `open` that failed, and `close`,")

    def test_agents_may_open_a_new_place_at_the_same_time(self, plugin: Plugin) -> None:
        """Several agents must be able to open the same new place at the same time, also where `open` creates a file or a
        table: the agents of a grid start together. Read: spi.Plugin.open."""
        together = threading.Barrier(4)

        def open_it() -> None:
            together.wait(30 * self.wait_factor)
            with closing(self.again(plugin)) as agent:
                self.comes_back(agent.open, 10, "place")

        try:
            in_threads([open_it] * 4, 60 * self.wait_factor)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the verdict
            with self.again(plugin):
                try:
                    with self.again(plugin):
                        pass
                except Rejected as refusal:
                    not_asked(f"one agent at a time: {refusal}")
            raise AssertionError(f"of 4 agents that opened a new place at once one raised {error!r}") from None

    def test_usage_counts_what_was_asked_since_the_plugin_was_made(self, plugin: Plugin) -> None:
        """`usage` must count the requests since the plugin was made: a run shows these numbers in its summary.
        Read: spi.Plugin.usage, spi.Usage."""
        with self.again(plugin) as opened:
            first = opened.usage()
            if first is None:
                not_asked("`usage` is None: its calls cost nothing")
            self.use(opened)
            then = opened.usage()
            again = opened.usage()
        assert then is not None, "`usage` told something after `open`, and is None after a call"
        assert again is not None, "`usage` told something once, and is None when it is asked again"
        counts = [sum(each.requests.values()) for each in (first, then, again)]
        assert counts[0] < counts[1] <= counts[2], (
            f"`requests` of `usage` add up to {counts[0]} after `open`, {counts[1]} after a call, and {counts[2]} when it is "
            f"asked again: they count since the plugin was made"
        )
        dollars = [each.dollars for each in (first, then, again) if each.dollars is not None]
        assert dollars == sorted(dollars), f"`dollars` of `usage` go down: {dollars}"
        assert all(each >= 0 for each in dollars), f"`dollars` of `usage` are {dollars}"

    def test_a_place_that_came_back_is_used_again(self, plugin: Plugin) -> None:
        """When the service can be reached again, the plugin must work again. It must replace a broken connection: an
        outage must not end a run. Read: spi.Unavailable."""
        self.needs("take_away")
        self.needs("bring_back")
        with self.again(plugin) as opened:
            self.use(opened)
            with self.away(opened):
                until, calls = time.monotonic() + 2, 0
                while calls < 2 or (time.monotonic() < until and calls < 24):  # each may take a connection
                    with self.unavailable("a call while the place was away", opened):
                        self.use(opened)
                    calls += 1
            self.comes_back(lambda: self.use(opened), 20, "place")
