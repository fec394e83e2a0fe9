"""A place that cannot be opened, or was away and is there again."""

from contextlib import suppress

from htcgrid.spi import HtcgridError, Plugin

from htcgrid_contracts.common import HeldResources, PluginContract


class RecoveryRules(PluginContract):
    """Asked of sources and sinks. Planes have rules of their own, and clients of engines that leave a thread behind."""

    def test_an_open_that_fails_leaves_nothing(self, missing: Plugin) -> None:
        """`open` is tried again and again where a place is unavailable. Read: spi.Plugin.open, spi.Plugin.close."""

        def fail() -> None:
            with suppress(HtcgridError), type(missing)(missing.config, missing.function):
                pass

        fail()  # what an SDK loads once and keeps is no leak
        before = HeldResources.now()
        for _ in range(2):
            fail()
        self.nothing_is_held(before, "twice an `open` that failed, and `close`,")

    def test_a_place_that_came_back_is_used_again(self, plugin: Plugin) -> None:
        """An outage is not the end of a run: a connection that broke is made anew. Read: spi.Unavailable."""
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
