"""A service that cannot be reached at `open`, or that was away and is back."""

from contextlib import suppress

from htcgrid.spi import HtcgridError, Plugin

from htcgrid_contracts.common import HeldResources, PluginContract, not_asked


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
            self.take_away(opened)
            for _ in range(2):
                with self.unavailable("a call while the place was away", opened):
                    self.use(opened)
            self.bring_back(opened)
            self.comes_back(lambda: self.use(opened), 20, "place")
