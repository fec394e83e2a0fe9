"""What handlers print, given to `output`: all of it, each line once, with its task."""

import threading
from collections import defaultdict

import pytest
from htcgrid.spi import STDOUT_OR_STDERR, Capability, FailureKind, HandlerOutput, Invoker, Lease

from htcgrid_contracts.invoker_helpers import InvokerHelpers, lease

_LINES = 12_000
_STREAMS = {"stdout", "stderr", STDOUT_OR_STDERR}


class KeptOutput(HandlerOutput):
    """Keeps what it is given, by task."""

    is_wanted = True

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.texts: dict[str | None, list[bytes]] = defaultdict(list)
        self.environments: dict[str | None, set[str]] = defaultdict(set)
        self.streams: set[str] = set()

    def write(self, lease: Lease | None, environment: str, text: bytes, stream: str = STDOUT_OR_STDERR) -> None:
        task_id = lease.task.id if lease is not None else None
        with self._lock:
            # What has no newline at its end is a line as well.
            self.texts[task_id].append(text if text.endswith(b"\n") else text + b"\n")
            self.environments[task_id].add(environment)
            self.streams.add(stream)

    def lines(self, asked: Lease) -> list[str]:
        """The lines that were printed under this task."""
        return b"".join(self.texts[asked.task.id]).decode(errors="replace").splitlines()

    def everything(self) -> bytes:
        """All that was printed, under any task or under none."""
        with self._lock:
            return b"".join(text for texts in self.texts.values() for text in texts)


class OutputRules(InvokerHelpers):
    """Asked of planes that give all that handlers print to `output`."""

    @pytest.mark.capability(Capability.OUTPUT)
    def test_all_that_handlers_print_is_handed_over_with_its_task(self, invoker: Invoker) -> None:
        """Each line that a handler prints must be given to `output` once, with its task. A line that is lost, doubled
        or of another task misleads users. Read: spi.Invoker.output."""
        said = [[f"of {name} {number:05} {'.' * 90}" for number in range(_LINES)] for name in "ab"]
        batch = [lease("say", text="\n".join(lines)) for lines in said]
        silent, unended = lease("echo", value=1), lease("say", text="no newline at its end", end="")
        batch += [silent, unended]
        plane = self.again(invoker)
        plane.output = kept = KeptOutput()
        with plane:
            outcomes = [
                outcome
                for at in range(0, len(batch), plane.max_batch)
                for outcome in self.run(plane, batch[at : at + plane.max_batch])
            ]
        for outcome in outcomes:
            self.answer(outcome)  # else what is missing below was never printed
        for asked, lines in zip(batch, [*said, [], ["no newline at its end"]], strict=True):
            given = [line for line in kept.lines(asked) if line.startswith(("of ", "no newline"))]
            missing, more = len(set(lines) - set(given)), len(given) - len(set(given) & set(lines))
            assert given == lines, (
                f"the handler printed {len(lines)} lines under a task; `output.write` was given {len(given)} with it: "
                f"{missing} are missing, {more} are too many or another task's"
            )
        for asked, outcome in zip(batch, outcomes, strict=True):
            named = kept.environments[asked.task.id]
            assert named <= {outcome.environment}, (
                f"`output.write` was given {named}, the outcome {outcome.environment!r}"
            )
        assert kept.streams <= _STREAMS, f"`output.write` was given the streams {kept.streams}; there are {_STREAMS}"

    @pytest.mark.capability(Capability.OUTPUT, Capability.EXIT)
    def test_what_a_handler_printed_before_it_ended_its_process_is_handed_over(self, invoker: Invoker) -> None:
        """What a handler printed before it ended its process must be given to `output` too. Users look for the last
        line. Read: spi.HandlerOutput.write."""
        asked = lease("end", status=3, at_once=True)
        plane = self.again(invoker)
        plane.output = kept = KeptOutput()
        with plane:
            self.failed(self.run(plane, [asked])[0], FailureKind.EXIT)
        given = [line for line in kept.lines(asked) if "ending" in line]
        assert given == ["ending"], (
            f'the handler printed "ending" and ended its process; `output.write` was given {given}'
        )

    @pytest.mark.capability(Capability.OUTPUT, Capability.TIMEOUT)
    def test_what_a_handler_printed_before_its_timeout_is_handed_over(self, invoker: Invoker) -> None:
        """What a handler printed before it was stopped, or raised, must be given to `output` too.
        Read: spi.HandlerOutput.write."""
        seconds = self.short_timeout
        slow = lease("sleep", print="before its timeout", seconds=seconds + 30 * self.wait_factor)
        raising = lease("fail", print="before its error")
        plane = self.again(invoker)
        plane.output = kept = KeptOutput()
        with plane:
            self.failed(self.run(plane, [slow], seconds)[0], FailureKind.TIMEOUT)
            self.failed(self.run(plane, [raising])[0], FailureKind.HANDLER_ERROR)
        for asked, said in ((slow, "before its timeout"), (raising, "before its error")):
            given = [line for line in kept.lines(asked) if line.startswith("before")]
            assert given == [said], f"the handler printed {said!r} and failed; `output.write` was given {given}"
