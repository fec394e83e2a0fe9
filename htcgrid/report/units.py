"""Figures as people read them."""

import time


def duration(milliseconds: float) -> str:
    if milliseconds < 1000:
        return f"{milliseconds:.3g} ms" if milliseconds < 100 else f"{milliseconds:.0f} ms"
    seconds = milliseconds / 1000
    if seconds < 120:
        return f"{seconds:.3g} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def moment(seconds: float) -> str:
    """In UTC; a dash where it is not known."""
    if not 0 < seconds < 2**40:
        return "-"
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds)) + " UTC"


def clock_time(seconds: float, span: float) -> str:
    """As the label of an axis that covers so many seconds."""
    if not 0 <= seconds < 2**40:
        return "-"
    if span >= 2 * 86400:
        return time.strftime("%m-%d %H:%M", time.gmtime(seconds))
    text = time.strftime("%H:%M:%S", time.gmtime(seconds))
    return text if span > 20 else f"{text}.{int(seconds % 1 * 10)}"


def megabytes(value: float) -> str:
    return f"{value:,.0f} MB"


def shortened(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
