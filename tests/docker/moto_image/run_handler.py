"""Run one handler on one event, as moto wants it: the answer is the last line, a failure ends with status 1."""

import importlib
import json
import sys
from types import SimpleNamespace

sys.path.insert(0, "/var/task")
module, _, name = sys.argv[1].rpartition(".")
try:
    context = SimpleNamespace(client_context=SimpleNamespace(custom={}))
    answer = getattr(importlib.import_module(module), name)(json.loads(sys.argv[2]), context)
except Exception as error:  # noqa: BLE001 - a handler may raise anything
    answer = {"errorType": type(error).__name__, "errorMessage": str(error), "requestId": "r", "stackTrace": []}
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.exit(1)
sys.stdout.write(json.dumps(answer) + "\n")
