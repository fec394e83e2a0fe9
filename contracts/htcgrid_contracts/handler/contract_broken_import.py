"""A module that cannot be loaded: its environment reports an `init_error`."""

raise RuntimeError("contract: this module fails as it is loaded")
