"""A runtime that does to the Runtime API what its event names, then answers with what it was told.

Run by test_runtime_api.py as a function's command. It speaks HTTP by hand, since no client would do this.
"""

# ruff: noqa: ANN001, ANN201, ANN202, ANN204, T201 - a program of its own, and not a typed one

import json
import os
import re
import socket
import struct
import sys
import time

HOST, _, PORT = os.environ["AWS_LAMBDA_RUNTIME_API"].rpartition(":")
ROOT = "/2018-06-01/runtime/"


class Call:
    """One connection."""

    def __init__(self):
        self.channel = socket.create_connection((HOST, int(PORT)), timeout=20)

    def send(self, data):
        self.channel.sendall(data)
        return self

    def ask(self, method, path, body=b"", headers=""):
        head = f"{method} {ROOT}{path} HTTP/1.1\r\nHost: api\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
        return self.send(head.encode() + body)

    def reply(self):
        """Status, head and body; status 0 where the server has hung up."""
        data = b""
        try:
            while b"\r\n\r\n" not in data:
                data += self._more()
            head, _, body = data.partition(b"\r\n\r\n")
            size = int(re.search(rb"(?i)content-length: (\d+)", head + b"\r\ncontent-length: 0")[1])
            while len(body) < size:
                body += self._more()
        except ConnectionError:
            return 0, "", data
        return int(head.split()[1]), head.decode(), body

    def _more(self):
        data = self.channel.recv(1 << 16)
        if not data:
            raise ConnectionError
        return data

    def status(self):
        return self.reply()[0]

    def hang_up(self, *, hard=False):
        if hard:
            self.channel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.channel.close()


def status(method, path, body=b"", headers=""):
    return Call().ask(method, path, body, headers).status()


def event_of(head, body):
    found = dict(re.findall(r"(?i)lambda-runtime-([a-z-]+): (.*?)\r\n", head + "\r\n"))
    return {name.lower(): value for name, value in found.items()}, body


# --- each does one thing and returns what it was told; `answer` is where the invocation is to be answered ---


def nothing(answer, facts):
    return None


def asks_next_twice(answer, facts):
    _, head, body = Call().ask("GET", "invocation/next").reply()
    return event_of(head, body)[0]["invocation-id"] == facts["invocation-id"]


def answers_another(answer, facts):
    return status("POST", "invocation/00000000-0000-0000-0000-000000000000/response", b'"wrong"')


def answers_for_an_attempt_that_is_over(answer, facts):
    return status("POST", answer, b'"late"', "Lambda-Runtime-Invocation-Id: older\r\n")


def reports_an_init_error_when_it_is_up(answer, facts):
    return status("POST", "init/error", b"{}")


def asks_for_what_is_not_there(answer, facts):
    return [
        status("GET", "nothing"),
        status("POST", "invocation/next"),
        status("GET", answer),
        status("DELETE", "init/error"),
        Call().send(b"GET / HTTP/1.1\r\n\r\n").status(),
        status("POST", "invocation/response"),
        status("POST", "invocation/a/b/response"),
    ]


def restores(answer, facts):
    return [status("GET", "restore/next"), status("POST", "restore/error", b"{}")]


def sends_garbage(answer, facts):
    return [
        Call().send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").status(),
        Call().send(b"HELLO\r\n\r\n").status(),
        Call().send(b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n").status(),
        Call().send(b"GET / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n").status(),
        Call().send(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n").status(),
    ]


def sends_a_header_without_end(answer, facts):
    call = Call().send(b"GET / HTTP/1.1\r\nX: ")
    try:
        for _ in range(1000):
            call.send(b"y" * 65536)
    except ConnectionError:
        return "stopped"
    return "never stopped"


def sends_trailers_without_end(answer, facts):
    call = Call().send(f"POST {ROOT}{answer} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n1\r\n0\r\n".encode())
    try:
        for _ in range(1000):
            call.send(b"x: " + b"y" * 65536 + b"\r\n")
    except ConnectionError:
        return "stopped"
    return "never stopped"


def hangs_up_half_way(answer, facts):
    for hard in (False, True):
        Call().send(b"GE").hang_up(hard=hard)
        Call().send(f"POST {ROOT}{answer} HTTP/1.1\r\nContent-Le".encode()).hang_up(hard=hard)
        Call().send(f"POST {ROOT}{answer} HTTP/1.1\r\nContent-Length: 10\r\n\r\n12345".encode()).hang_up(hard=hard)
        Call().hang_up(hard=hard)


def leaves_half_a_request_open(answer, facts):
    KEPT.append(Call().send(f"POST {ROOT}{answer} HTTP/1.1\r\nContent-Length: 10\r\n\r\n12345".encode()))


def opens_many_connections(answer, facts):
    calls = [Call() for _ in range(100)]
    for call in calls:
        call.hang_up()


def sends_byte_by_byte(answer, facts):
    call = Call()
    for byte in b"GET /2018-06-01/runtime/nothing HTTP/1.1\r\nhost: x\r\n\r\n":
        call.send(bytes([byte]))
    return call.status()


def asks_much_and_reads_nothing(answer, facts):
    call = Call()
    call.channel.settimeout(0.5)
    try:
        for _ in range(10000):
            call.send(b"GET /nothing HTTP/1.1\r\n\r\n" * 100)
    except TimeoutError:
        return "held back"
    return "never held back"


def speaks_http_1_0(answer, facts):
    call = Call().send(b"GET /2018-06-01/runtime/nothing HTTP/1.0\r\n\r\n")
    return [call.status(), call.channel.recv(1) == b""]


def reads_slowly(answer, facts):
    return facts["size"]


def answers_twice(answer, facts):
    first = status("POST", answer, b'"first"')
    again = [status("POST", answer, b'"second"'), status("POST", answer.replace("response", "error"), b"{}")]
    return {"then": [first, *again]}


def answers_too_much(answer, facts):
    return {"then": status("POST", answer, b"1" * 6_291_557)}


def answers_in_chunks(answer, facts):
    call = Call().send(f"POST {ROOT}{answer} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    call.send(b"1\r\n[\r\n2\r\n7,\r\n" + b"2\r\n7,\r\n" * 998)
    call.send(b"1\r\n7\r\n").send(b"1\r\n]\r\n")
    return {"then": call.send(b"0\r\n\r\n").status()}


def answers_when_told_to_go_on(answer, facts):
    call = Call().send(f"POST {ROOT}{answer} HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n".encode())
    told = call.status()
    return {"then": [told, call.send(b'"ok"').status()]}


def breaks_a_stream_off(answer, facts):
    call = Call().send(
        f"POST {ROOT}{answer} HTTP/1.1\r\nLambda-Runtime-Function-Response-Mode: streaming\r\n"
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n"
        "Lambda-Runtime-Function-Error-Type: Stream.Broken\r\n"
        "Lambda-Runtime-Function-Error-Body: eyJlcnJvclR5cGUiOiAiU3RyZWFtLkJyb2tlbiJ9\r\n\r\n".encode()
    )
    return {"then": call.status()}


def fails_without_a_document(answer, facts):
    error = answer.replace("response", "error")
    return {"then": status("POST", error, b"no document", "Lambda-Runtime-Function-Error-Type: My.Error\r\n")}


def answers_and_ends(answer, facts):
    status("POST", answer, b'"last words"')
    os._exit(0)


def answers_and_asks_no_more(answer, facts):
    status("POST", answer, b'"idle"')
    time.sleep(3600)


KEPT = []
TOLD = []


def main():
    before = status("POST", "invocation/00000000-0000-0000-0000-000000000000/response", b"1")
    # What comes behind a `next` that waits could only be answered out of turn.
    behind = Call().send(f"GET {ROOT}invocation/next HTTP/1.1\r\n\r\nGET /nothing HTTP/1.1\r\n\r\n".encode()).status()
    print("before the first event:", before, behind, file=sys.stderr, flush=True)
    while True:
        call = Call()
        call.channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        _, head, body = call.ask("GET", "invocation/next").reply()
        call.hang_up()
        facts, body = event_of(head, body)
        event = json.loads(body)
        facts["size"] = len(body)
        answer = f"invocation/{facts['aws-request-id']}/response"
        if event["do"] == "tell":
            told = TOLD.pop()
        else:
            told = globals()[event["do"]](answer, facts)
            if isinstance(told, dict):  # it has answered by itself
                TOLD.append(told["then"])
                continue
        status("POST", answer, json.dumps(told).encode())


main()
