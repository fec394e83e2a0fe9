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
    "200 kB": b'"' + b"0123456789" * 20_000 + b'"',
}
"""Each is one JSON document whose bytes a parser and a writer would not return, or an edge of size."""

AWKWARD_ATTRIBUTES: Mapping[str, Mapping[str, str]] = {
    "none": {},
    "the names of htcgrid": {"session_id": "s-1", "priority": "5"},
    "not ASCII": {"city": "Zürich 東京 😀"},
    "empty text": {"note": ""},
    "quotes and newlines": {"note": 'a "b"\n\tc\\d'},
}
