# ruff: noqa: ANN001, ANN201, T201
print("while it was loaded")


def handler(event, context):
    return "loaded"
