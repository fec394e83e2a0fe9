"""A handler that prints what its event says, in the ways in which handlers print."""

import os
import subprocess
import sys
import time

print("loading", flush=True)


def handler(event, context):
    do = event["do"]
    if do == "lines":
        for number in range(event["count"]):
            print(f"{event['name']} line {number:07} {'x' * event.get('width', 20)}")
    elif do == "no_end":
        sys.stdout.write(f"{event['name']} no end")
        sys.stdout.flush()
    elif do == "child":
        subprocess.run(["/bin/sh", "-c", f"echo {event['name']} of a child"], check=True)
    elif do == "error":
        sys.stderr.write(f"{event['name']} on standard error\n")
    elif do == "die":
        print(f"{event['name']} before", flush=True)
        os.write(1, f"{event['name']} cut".encode())
        os.kill(os.getpid(), 9)
    elif do == "hang":
        print(f"{event['name']} hangs", flush=True)
        time.sleep(60)
    elif do == "not_utf8":
        os.write(1, b"\xff\xfe\n\x1b[31mred\n")
    elif do == "long":
        os.write(1, b"y" * event["bytes"] + b"\n")
    return None
