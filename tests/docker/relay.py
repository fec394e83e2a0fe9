"""Joins one Unix socket to another, until it is killed: `relay.py HERE THERE`."""

import socket
import sys
import threading


def main() -> None:
    here, there = sys.argv[1:]
    with socket.create_server(here, family=socket.AF_UNIX) as listener:
        while True:
            near, _ = listener.accept()
            far = socket.socket(socket.AF_UNIX)
            far.connect(there)
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=copy, args=(one, other), daemon=True).start()


def copy(one: socket.socket, other: socket.socket) -> None:
    while data := one.recv(1 << 16):
        other.sendall(data)
    other.shutdown(socket.SHUT_WR)


main()
