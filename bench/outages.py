"""One call to AWS is refused for a minute while two hundred tasks run: what is lost, and how many requests are made.

    python bench/outages.py [--seconds 60] [-n 8]

It runs `plugins/aws/tests/test_outages.py` (moto over HTTP, the real agent and plugins) and that of `plugins/aws_lambda` (the
fake service) in real time, several at a time, and prints their figures.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

PLUGINS = Path(__file__).parents[1] / "plugins"
HEAD = (
    f"{'run':<18}{'call that is refused':<36}{'lost':>6}{'dead':>6}{'ran twice':>11}{'requests refused':>18}{'all requests':>14}"
    f"{'done after':>12}"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("-n", type=int, default=8, help="how many at a time")
    given = parser.parse_args()
    print(HEAD, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        table, failed = Path(folder) / "table", 0
        for plugin in ("aws", "aws_lambda"):
            options = ["-n", f"{given.n}", "-q", f"--outage={given.seconds}", f"--outage-table={table}"]
            done = subprocess.run(
                [sys.executable, "-m", "pytest", "tests/test_outages.py", *options],
                cwd=PLUGINS / plugin,
                check=False,
                stdout=subprocess.PIPE,
                text=True,
            )
            if done.returncode:
                failed = 1
                print(done.stdout, file=sys.stderr)
            for line in table.read_text().splitlines() if table.exists() else ():
                print(row(json.loads(line)), flush=True)
            table.unlink(missing_ok=True)
    sys.exit(failed)


def row(figures: dict) -> str:
    return (
        f"{figures['kind']:<18}{figures['call']:<36}{figures['lost']:>6}{figures['dead']:>6}{figures['twice']:>11}"
        f"{figures['requests']:>18}{figures['all']:>14}{figures['took']:>10.1f} s"
    )


if __name__ == "__main__":
    main()
