"""Writes a batch of results as lines of a file, piece by piece: a text and its bytes are two copies of every answer."""

from collections.abc import Iterator, Sequence

from htcgrid.builtin.jsonl_results import in_generation
from htcgrid.builtin.jsonl_results import line as result_line
from htcgrid.builtin.jsonl_results import pieces as result_pieces
from htcgrid.spi import GENERATION, Result, generation_of

_PIECE_BYTES = 4 << 20
"""About how many bytes of results become lines at once."""


def pieces_of(sizes: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """The begin, end and size of each piece of about `_PIECE_BYTES`."""
    if (whole := sum(sizes)) <= _PIECE_BYTES:
        yield 0, len(sizes), whole
        return
    start = size = 0
    for end, length in enumerate(sizes, 1):
        size += length
        if size > _PIECE_BYTES or end == len(sizes):
            yield start, end, size
            start, size = end, 0


def lines(results: Sequence[Result], fingerprints: Sequence[int], *, is_again: bool) -> str:
    texts = list(map(result_line, results, fingerprints))
    if is_again:
        for number, result in enumerate(results):
            if generation := generation_of(result.task):
                texts[number] = in_generation(texts[number], generation)
    return "".join(texts)


def large_lines(results: Sequence[Result], fingerprints: Sequence[int]) -> Iterator[bytes]:
    """The lines in pieces; answers are not copied."""
    for result, fingerprint in zip(results, fingerprints, strict=True):
        is_again = GENERATION in result.task.attributes
        parts = () if is_again else result_pieces(result, fingerprint)
        if parts:
            yield from parts
        else:
            yield lines([result], [fingerprint], is_again=is_again).encode("utf-8", "surrogatepass")
