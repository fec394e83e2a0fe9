"""Write a Lambda-style handler once; run it unchanged on a chosen compute plane."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from htcgrid.client import FunctionError, Grid

__all__ = ["FunctionError", "Grid"]


def __getattr__(name: str) -> Any:
    # Loaded when asked for: a worker process imports this package too, and has no use for a client.
    if name in __all__:
        from htcgrid import client  # noqa: PLC0415

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
