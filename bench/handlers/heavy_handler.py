"""A module that takes long to import: with pandas and scikit-learn where they are installed, else with tables of its own."""

import time

try:
    import pandas as pd  # noqa: F401
    import sklearn.ensemble
    import sklearn.linear_model  # noqa: F401
except ImportError:
    TABLES = [{str(key): [key] * 3 for key in range(2_000)} for _ in range(400)]


def handler(event, context):
    time.sleep(event["ms"] / 1000)
    return event
