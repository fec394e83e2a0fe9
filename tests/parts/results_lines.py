"""What stands in a results file, to the byte."""

import json
from pathlib import Path


def outputs(results: Path) -> dict[str, str]:
    """The output of each task, as it stands in the file."""
    found = {}
    for line in results.read_text().splitlines():
        _, _, output = line.partition('"output":')
        assert output, line
        end = json.JSONDecoder().raw_decode(output.lstrip())[1]
        found[json.loads(line)["id"]] = output.lstrip()[:end]
    return found
