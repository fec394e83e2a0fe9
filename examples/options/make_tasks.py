"""Write tasks.jsonl: one task a trading day, from the S&P 500 and VIX series that the package `arch` ships.

Volatility is the VIX of that day where the series has it (from 2014), before that the realised
volatility of the last 21 daily returns; the first 21 days, which have neither, are left out.
"""

import csv
import gzip
import io
import json
import math
import os
import statistics
from importlib.metadata import distribution
from itertools import pairwise
from pathlib import Path

DAYS = 21
TRADING_DAYS_A_YEAR = 252
MISSING = "."


def column(series: str, name: str) -> dict[str, float]:
    """One column of a series by date. The files are read as they are; `arch` itself is not imported."""
    file = Path(str(distribution("arch").locate_file(f"arch/data/{series}/{series}.csv.gz")))
    rows = csv.DictReader(io.StringIO(gzip.decompress(file.read_bytes()).decode()))
    return {iso(row["Date"]): float(row[name]) for row in rows if row[name] != MISSING}


def iso(date: str) -> str:
    """A date as ISO has it; one of the series has months first."""
    if "/" not in date:
        return date
    month, day, year = date.split("/")
    return f"{year}-{int(month):02}-{int(day):02}"


def main() -> None:
    closes = column("sp500", "Close")
    vix = column("vix", "vix")
    dates = sorted(closes)
    returns = [math.log(closes[today] / closes[before]) for before, today in pairwise(dates)]
    made = Path(__file__).with_name(f"tasks.jsonl.{os.getpid()}")
    with made.open("w", encoding="utf-8") as tasks:
        for number in range(DAYS, len(dates)):
            date = dates[number]
            realised = statistics.stdev(returns[number - DAYS : number]) * math.sqrt(TRADING_DAYS_A_YEAR)
            volatility = vix[date] / 100 if date in vix else round(realised, 6)
            event = {"date": date, "spot": closes[date], "volatility": volatility, "rate": 0.02, "days": 30}
            tasks.write(json.dumps(event) + "\n")
    made.replace(made.with_suffix(""))  # all at once: a run that reads the file goes on with what it has


if __name__ == "__main__":
    main()
