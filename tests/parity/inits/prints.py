# ruff: noqa: ANN, T201
print("while it was loaded")


def handler(event, context):
    return "loaded"
