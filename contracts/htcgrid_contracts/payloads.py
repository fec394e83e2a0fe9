"""Payloads and attributes that a plugin is likely to change on their way."""

from collections.abc import Mapping

AWKWARD_PAYLOADS: Mapping[str, bytes] = {
    "null": b"null",
    "empty text": b'""',
    "empty object": b"{}",
    "spaces and order": b'{ "b" : 1.0,  "a" : [ 1e2, -0, 0.10 ], "\\u00e9" : "\\ud83d\\ude00" }',
    "the same key twice": b'{"a": 1, "a": 2}',
    "not ASCII": '{"naïve": "価格 – Ωmega 😀"}'.encode(),
    "more digits than a float has": b"123456789012345678901234567890.12345678901234567890",
    "a number": b"0",
    "escapes": rb'"\u0000 \ud800 \u2028 \\ \" \/ \b \n"',
    "marks of other languages": b"\"%s %(a)s {0} {} $1 ${x} ' '' ; -- <b> &amp; \x7f\"",
    "composed and decomposed": '"\u00e9 e\u0301 \u212b \ufb01 \u0085 \u2028 \ufeff"'.encode(),
    "tabs between": b'{\t"a":\t[1,\t2]\t}',
    "white space around": b' {"a": 1} ',
    "line breaks": b'{\r\n"a":\n1\r}\n',
    "200 kB": b'"' + b"0123456789" * 20_000 + b'"',
}
"""Each is one JSON document whose bytes a parser and a writer would not return, or an edge of size."""

AWKWARD_ATTRIBUTES: Mapping[str, Mapping[str, str]] = {
    "none": {},
    "the names of htcgrid": {"session_id": "s-1", "priority": "5"},
    "not ASCII": {"city": "Zürich 東京 😀"},
    "empty text": {"note": ""},
    "quotes and newlines": {"note": 'a "b"\n\tc\\d'},
    "spaces around": {"note": "  a  "},
    "capitals": {"City": "Bern", "city": "Basel"},
    "names of fields": {"id": "1", "payload": "2", "reason": "3", "state": "4", "receipt": "5"},
    "names with other letters": {"a.b c:d/e": "1", "Größe": "2", "x-y_z": "3"},
    "many": {f"name-{number}": str(number) for number in range(30)},
    "a long text": {"note": "long " * 120},
    "what looks like a number": {"note": "0012.50", "flag": "true", "none": "null"},
    "composed and decomposed": {"note": "\u00e9 e\u0301 \u212b\r\n", "e\u0301": "1"},
    "a generation that is not ours": {"generation": "first"},
}

ODD_TEXTS = ("a\0b", "half \ud800 of a pair", "", "\x1b[1m", "\U0001f600" * 60)
"""Texts that JSON can hold in an attribute, and that a database may refuse or cut."""
LONG_TEXT = "a line of a description, " * 100
"""More than fits into a column of 255, 1000 or 2000 characters."""

AWKWARD_SESSIONS = (
    *("s-1", "S-1", "s_1", "s%", "s-1:a", "s-1/é", "s-1/e\u0301", "s-1 ", "s" * 120, "s" * 119 + "t"),
    "s'1\"\\",
)
AWKWARD_IDS = (
    "a",
    "A",
    "a/b",
    "a b",
    "a%2Fb",
    "a'b\"c",
    "a\\b",
    "a;b,c:d",
    "é",
    "e\u0301",
    "価格",
    "x" * 175,
    "a ",
    "%",
    "価" * 175,
)
"""Ends of ids that differ, and that a file name, an address or a collation may take for one another."""


def large_text(size: int) -> bytes:
    """A JSON text of `size` bytes or a few less, of half as many characters: limits are in bytes."""
    return b'"' + "0é価😀é価\\n".encode() * ((size - 2) // 17) + b'"'
