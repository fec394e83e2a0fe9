"""What runs beside the Lambda containers of a pod that `eks` has made: a relay to its sidecar plane, on the pod's loopback.

`eks` reaches it through the API server. Nothing listens beyond the pod. When nobody has
been connected for a while, the relay ends, and the pod with it: so the pods of a killed `eks` end by themselves.
"""

import argparse
import json
import logging
import os
import signal
import sys
from pathlib import Path

from htcgrid.planes import Relay
from htcgrid.spi import Function, HtcgridError

from htcgrid_eks.sidecar import EksSidecarInvoker

log = logging.getLogger("htcgrid.eks.pod_relay")

PORT = 4275


def _end(_number: int, _frame: object) -> None:
    os._exit(0)  # the first process of a container has no default action for SIGTERM


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("settings", type=json.loads)
    settings = parser.parse_args().settings
    function = Function.model_validate(settings["function"])
    plane = EksSidecarInvoker(EksSidecarInvoker.Config.model_validate(settings["sidecar"]), function)
    orphan_seconds = settings["orphan_seconds"]
    relay = Relay(
        lambda _wanted: plane,
        Path(settings["code"]) if settings["code"] else None,
        token=settings["token"],
        # The first client comes once all pods of its run are up, which may take the others longer.
        first_seconds=plane.config.start_seconds + orphan_seconds,
        orphan_seconds=orphan_seconds,
    )
    signal.signal(signal.SIGTERM, _end)
    relay.listen(PORT)
    log.warning("No client has been connected for %g s: the relay ends.", orphan_seconds)
    plane.quit()


if __name__ == "__main__":
    try:
        main()
    except HtcgridError as error:
        sys.exit(str(error))
