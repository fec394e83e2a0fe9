"""What a handler can do, one function a behaviour; run on the emulator and on the process plane."""

# ruff: noqa: ANN001, ANN201, F601, ICN001, LOG015, PLW0603, PTH107, PTH109, PTH110, PTH120, PTH123, T201 - handlers, as users write them

import asyncio
import ctypes
import datetime
import decimal
import json
import logging
import os
import signal
import sys
import threading
import time
import uuid

count = 0
seen = []


def handler(event, context):
    if isinstance(event, dict) and "do" in event:
        return globals()[event["do"]](event, context)
    return event


# --- answers ---


def echo(event, context):
    return event["value"]


def a_tuple(event, context):
    return (1, (2, 3))


def a_decimal(event, context):
    return {"price": decimal.Decimal("10.250"), "large": decimal.Decimal("1E+3")}


def not_a_number(event, context):
    return [float("nan"), float("inf"), float("-inf")]


def bytes_of_json(event, context):
    return b'{"already":   "encoded"}'


def bytes_of_text(event, context):
    return b"no json"


def bytes_that_are_no_text(event, context):
    return b"\xff\xfe\x00"


def mixed_keys(event, context):
    return {1: "a", True: "b", None: "c", 2.5: "d"}


def a_set(event, context):
    return {1}


def a_generator(event, context):
    return (number for number in range(3))


def a_coroutine(event, context):
    coroutine = asyncio.sleep(0)
    coroutine.close()
    return coroutine


def a_date(event, context):
    return datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)


def a_uuid(event, context):
    return uuid.UUID(int=1)


def a_circle(event, context):
    circle = []
    circle.append(circle)
    return circle


def a_lone_surrogate(event, context):
    return "\ud800"


def a_tuple_as_key(event, context):
    return {(1, 2): 3}


def a_large_answer(event, context):
    return "x" * event["size"]


def length(event, context):
    return len(event["text"])


def looks_like_an_error(event, context):
    return {"errorType": "ValueError", "errorMessage": "no", "requestId": context.aws_request_id, "stackTrace": []}


def looks_like_a_timeout(event, context):
    return "Task timed out after 1.00 seconds"


# --- errors ---


class OwnError(Exception):
    pass


def raises(event, context):
    raise ValueError("no such strike")


def raises_without_text(event, context):
    raise OwnError


def raises_beyond_ascii(event, context):
    raise OwnError("zu kurz: Zoë €")


def raises_of_two_arguments(event, context):
    raise OwnError("a", 2)


def raises_from_a_cause(event, context):
    try:
        raises(event, context)
    except ValueError as error:
        raise OwnError("outer") from error


def raises_a_key_error(event, context):
    return {}["missing"]


def recurses(event, context):
    for limit in range(1, 1000):  # as deep as this, whatever is below: clients sit on different numbers of frames
        try:
            sys.setrecursionlimit(limit)
        except RecursionError:
            continue
        break
    sys.setrecursionlimit(limit + 100)
    return goes_deeper(event)


def goes_deeper(event):
    return goes_deeper(event)


def asserts(event, context):
    assert event == 1, "not one"


def raises_an_exception_group(event, context):
    raise ExceptionGroup("several", [ValueError(1), KeyError(2)])


def raises_multi_line(event, context):
    raise OwnError("first\n  second\nthird")


# --- ends ---


def exits_without_status(event, context):
    sys.exit()


def exits_with_0(event, context):
    sys.exit(0)


def exits_with_3(event, context):
    sys.exit(3)


def exits_with_text(event, context):
    sys.exit("goodbye")


def ends_with_0(event, context):
    os._exit(0)


def ends_with_255(event, context):
    os._exit(255)


def is_killed(event, context):
    os.kill(os.getpid(), signal.SIGKILL)


def is_terminated(event, context):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(10)


def segfaults(event, context):
    ctypes.string_at(0)


def aborts(event, context):
    os.abort()


def hangs_up(event, context):
    os.kill(os.getpid(), signal.SIGHUP)
    time.sleep(10)


def interrupts(event, context):
    raise KeyboardInterrupt


def sleeps(event, context):
    time.sleep(event["seconds"])
    return "slept"


# --- context ---


def request_id(event, context):
    return context.aws_request_id


def function(event, context):
    return [context.function_name, context.function_version, context.invoked_function_arn]


def memory(event, context):
    return [context.memory_limit_in_mb, type(context.memory_limit_in_mb).__name__]


def log_names(event, context):
    return [context.log_group_name, len(context.log_stream_name) > 0]


def remaining(event, context):
    left = context.get_remaining_time_in_millis()
    return [type(left).__name__, event["timeout"] * 1000 - 900 < left <= event["timeout"] * 1000]


def identity(event, context):
    return [context.identity.cognito_identity_id, context.identity.cognito_identity_pool_id]


def client_context(event, context):
    return [context.client_context.custom, context.client_context.env, context.client_context.client is None]


def tenant(event, context):
    return context.tenant_id


def shown(event, context):
    return sorted(name for name in vars(context) if not name.startswith("_"))


def logs_by_context(event, context):
    context.log("by the context\n")


# --- the environment ---


def variable(event, context):
    return os.environ.get(event["name"])


def counts(event, context):
    global count
    count += 1
    return count


def keeps_a_variable(event, context):
    before = os.environ.get("KEPT")
    os.environ["KEPT"] = "kept"
    return before


def works_on_in_a_thread(event, context):
    before = len(seen)
    threading.Thread(target=seen.append, args=(1,)).start()
    return before


def keeps_a_file(event, context):
    path = f"/tmp/htcgrid-parity-{os.getpid()}"
    existed = os.path.exists(path)
    with open(path, "w"):
        pass
    if existed:
        os.remove(path)
    return existed


def where(event, context):
    return [os.getcwd(), __file__, __name__, os.path.dirname(__file__) in sys.path]


def input_is_empty(event, context):
    return sys.stdin.read()


def timezone(event, context):
    return [time.tzname[0], time.localtime(0).tm_hour]


def encodings(event, context):
    return [sys.getdefaultencoding(), sys.getfilesystemencoding(), sys.stdout.encoding]


def time_of_the_deadline(event, context):
    return abs(context._epoch_deadline_time_in_ms / 1000 - time.time() - event["timeout"]) < 0.9


def runs_a_program(event, context):
    return os.popen("echo from the shell").read()


def pipes_are_plain(event, context):
    return os.popen("(yes; echo $? >&2) 2>&1 | head -1").read()


def is_main_thread(event, context):
    return threading.current_thread() is threading.main_thread()


def signals(event, context):
    plain = (signal.SIG_DFL, signal.default_int_handler)
    return [signal.getsignal(number) in plain for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)]


# --- logs ---


def prints(event, context):
    print("hello")
    print("Zoë €")
    print("no newline", end="")


def prints_errors(event, context):
    print("to stderr", file=sys.stderr)


def logs(event, context):
    logging.warning("careful")
    logging.getLogger("a.b").error("wrong %s", {"a": 1})
    logging.info("not shown")


def logs_an_exception(event, context):
    try:
        raises(event, context)
    except ValueError:
        logging.exception("caught")


def writes_to_the_descriptor(event, context):
    os.write(1, b"by descriptor\n")


def prints_json(event, context):
    print(json.dumps({"level": "INFO", "n": 1}))
