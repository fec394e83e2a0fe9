"""Lines of what comes in pieces."""

LINE_BYTES = 1 << 18
"""A line that is longer is handed on in parts of this size, so that one without an end fills no memory."""


class OutputLines:
    """Keeps the line that has no end yet."""

    def __init__(self) -> None:
        self.begun = b""

    def add(self, piece: bytes) -> bytes:
        """The lines that are whole now; of one that becomes too long, the part that there is."""
        end = piece.rfind(b"\n") + 1
        whole = self.begun + piece[:end] if end else b""
        self.begun = piece[end:] if end else self.begun + piece
        return whole or (self.rest() if len(self.begun) >= LINE_BYTES else b"")

    def rest(self) -> bytes:
        """The line that has no end, which is over now."""
        begun, self.begun = self.begun, b""
        return begun


def split(text: bytes) -> list[bytes]:
    """Its lines without their ends, cut where they are too long."""
    lines = text.split(b"\n")
    if not lines[-1]:
        lines.pop()
    if len(text) <= LINE_BYTES:
        return lines
    return [part for line in lines for part in _parts(line)]


def _parts(line: bytes) -> list[bytes]:
    parts = []
    while len(line) > LINE_BYTES:
        end = LINE_BYTES
        while end > LINE_BYTES - 4 and line[end] & 0xC0 == 0x80:  # not within a character of UTF-8
            end -= 1
        parts.append(line[:end])
        line = line[end:]
    return [*parts, line]
