"""The mutation score of the conformance kit: bugs that authors make, put one at a time into our own plugins.

    python tests/contracts/mutants.py [--only WORD] [--jobs N] [--json FILE]

Each mutant is a copy of a plugin's source with one bug in it. The plugin's contract is run over the copy and must break
a rule. Prints a table by kind and plugin, and each survivor; ends with 1 where fewer than 92 % are caught.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from mutants_catalogue import CATALOGUE, SURVIVORS
from mutants_first import KIND, SECONDS, UNCHANGED
from mutants_subjects import SUBJECTS, Mutant, Subject, mutated

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FLOOR = 0.92
CAUGHT, SURVIVED, UNFIT = "caught", "survived", "unfit"


@dataclass(frozen=True)
class Verdict:
    plugin: str
    kind: str
    name: str
    verdict: str
    by: str
    """The rule that was broken, or the end of what was printed."""
    seconds: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="mutants whose plugin, kind or name holds this")
    parser.add_argument("--jobs", type=int, default=4 * len(os.sched_getaffinity(0)))
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    chosen = [mutant for mutant in CATALOGUE if given.only in f"{mutant.plugin}: {mutant.kind}: {mutant.name}"]
    chosen = [mutant for mutant in chosen if SUBJECTS[mutant.plugin].is_possible()]
    began = time.monotonic()
    # First the plugins as they are, of which the slow ones take minutes; by then their rules are known by their times.
    unchanged = [Mutant(plugin, UNCHANGED, "unchanged") for plugin in {mutant.plugin for mutant in chosen}]
    unchanged.sort(key=lambda mutant: -SUBJECTS[mutant.plugin].seconds)
    order = [*unchanged, *sorted(chosen, key=lambda mutant: SUBJECTS[mutant.plugin].seconds)]
    verdicts = []
    with ThreadPoolExecutor(given.jobs) as pool, tempfile.TemporaryDirectory(prefix="htcgrid-mutants-") as folder:
        for done in as_completed([pool.submit(_try, Path(folder), mutant) for mutant in order]):
            verdict = done.result()
            if verdict.kind != UNCHANGED:
                verdicts.append(verdict)
            elif verdict.verdict != SURVIVED:
                print(f"{verdict.plugin} without a bug: {verdict.verdict}: {verdict.by}")
                pool.shutdown(cancel_futures=True)
                return 1
            print(
                f"{verdict.verdict:9} {verdict.seconds:5.1f} s  {verdict.plugin}: {verdict.name}: {verdict.by}",
                flush=True,
            )
    if given.json:
        given.json.write_text(json.dumps([asdict(each) for each in verdicts], indent=1) + "\n", encoding="utf-8")
    return _summarise(verdicts, time.monotonic() - began)


def _try(seconds: Path, mutant: Mutant) -> Verdict:
    """Run the plugin's contract over its copy, up to the first rule that is broken.

    In the folder `seconds` is a file for each plugin with the seconds that each rule takes.
    """
    subject = SUBJECTS[mutant.plugin]
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="htcgrid-mutant-") as made:
        folder = Path(made)
        shutil.copytree(ROOT / subject.package, folder / Path(subject.package).name)
        for relative, text in mutated(mutant, subject, ROOT).items():
            file = folder / Path(relative).relative_to(Path(subject.package).parent)
            file.write_text(text, encoding="utf-8")
        verdict, by = _run(subject, folder, mutant.kind, seconds / f"{mutant.plugin}.json")
    return Verdict(mutant.plugin, mutant.kind, mutant.name, verdict, by, round(time.monotonic() - began, 1))


def _run(subject: Subject, folder: Path, kind: str, seconds: Path) -> tuple[str, str]:
    command = [
        *(
            sys.executable,
            "-P",
            "-m",
            "pytest",
            "-x",
            "-q",
            "-n",
            "0",
            "--tb=line",
            "-p",
            "no:cacheprovider",
            "-p",
            "mutants_first",
        ),
        *("-p", "no:hypothesispytest", "-c", str(subject.settings(ROOT)), f"--rootdir={ROOT}"),
        *(
            "-o",
            f"timeout={subject.deadline}",
            f"--basetemp={folder / 'tmp'}",
            *(str(ROOT / test) for test in subject.tests),
        ),
    ]
    environment = {
        # With PYTHONUNBUFFERED nothing shows whether a plane flushes.
        **{name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
        "PYTHONPATH": os.pathsep.join([str(folder), str(HERE), os.environ.get("PYTHONPATH", "")]),
        "TMPDIR": str(folder),
        "PYTHONDONTWRITEBYTECODE": "1",
        KIND: kind,
        SECONDS: str(seconds),
    }
    run = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = run.communicate(
            timeout=subject.most_seconds * (3 if kind == UNCHANGED else 1)
        )  # all rules are asked
    except subprocess.TimeoutExpired:
        return CAUGHT, "it hung"
    finally:
        _end(run)
    lines = output.strip().splitlines()
    broken = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    if run.returncode == 1 and broken:
        return CAUGHT, broken[0].partition("::")[2][:160]
    if run.returncode == 0:
        return SURVIVED, ""
    return UNFIT, " | ".join(lines[-3:])[:300]


def _end(run: subprocess.Popen[str]) -> None:
    """End what a mutant has left in its session."""
    with suppress(ProcessLookupError):
        os.killpg(run.pid, signal.SIGKILL)
    run.wait()


def _summarise(verdicts: Sequence[Verdict], seconds: float) -> int:
    kinds = list(dict.fromkeys(each.kind for each in verdicts))
    plugins = list(dict.fromkeys(each.plugin for each in verdicts))
    tried = Counter((each.kind, each.plugin) for each in verdicts)
    caught = Counter((each.kind, each.plugin) for each in verdicts if each.verdict == CAUGHT)
    rows = [["kind", *plugins, "all"]]
    for kind in kinds:
        cells = [f"{caught[kind, each]}/{tried[kind, each]}" if tried[kind, each] else "" for each in plugins]
        rows.append([kind, *cells, _share([each for each in verdicts if each.kind == kind])])
    rows.append(
        ["all", *(_share([each for each in verdicts if each.plugin == plugin]) for plugin in plugins), _share(verdicts)]
    )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    print()
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print()
    for each in verdicts:
        if each.verdict == SURVIVED:
            reason = SURVIVORS.get((each.plugin, each.name), "no reason is known: the kit needs a rule")
            print(f"survivor  {each.plugin}: {each.name}: {reason}")
        elif each.verdict == UNFIT:
            print(f"unfit     {each.plugin}: {each.name}: {each.by}")
    score = sum(each.verdict == CAUGHT for each in verdicts) / max(1, len(verdicts))
    print(f"\n{score:.1%} of {len(verdicts)} mutants caught in {seconds:.0f} s; {FLOOR:.0%} is the least")
    return 0 if score >= FLOOR and not any(each.verdict == UNFIT for each in verdicts) else 1


def _share(verdicts: Sequence[Verdict]) -> str:
    return f"{sum(each.verdict == CAUGHT for each in verdicts)}/{len(verdicts)}"


if __name__ == "__main__":
    if importlib.util.find_spec("htcgrid_contracts") is None:
        sys.exit("Install the kit first: make .make/plugins")
    sys.exit(main())
