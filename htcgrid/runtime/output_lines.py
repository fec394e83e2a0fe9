"""Lines of output that comes in pieces."""

LINE_BYTES = 1 << 18
"""A longer line is handed on in parts of this size, so that a line without an end does not fill memory."""


class OutputLines:
    """Keeps the line that has no end yet."""

    def __init__(self) -> None:
        self.begun = b""

    def add(self, piece: bytes) -> bytes:
        """The lines that are complete now; of a line that is too long, the part that has come."""
        end = piece.rfind(b"\n") + 1
        whole = self.begun + piece[:end] if end else b""
        self.begun = piece[end:] if end else self.begun + piece
        return whole or (self.rest() if len(self.begun) >= LINE_BYTES else b"")

    def rest(self) -> bytes:
        """The line without an end: nothing more comes."""
        begun, self.begun = self.begun, b""
        return begun


def split(text: bytes) -> list[bytes]:
    """The lines of a text without their ends, cut where they are too long."""
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
