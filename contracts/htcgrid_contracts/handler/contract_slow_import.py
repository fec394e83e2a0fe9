"""A module that takes three seconds to be loaded; its handler returns `value`."""

import time
from typing import Any

print("contract_slow_import is loaded", flush=True)
time.sleep(3)


def handler(event: dict[str, Any], context: Any) -> Any:
    return event["value"]
