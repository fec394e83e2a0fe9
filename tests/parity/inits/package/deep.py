# ruff: noqa: ANN, T201
def handler(event, context):
    return __name__


class Handlers:
    @staticmethod
    def handler(event, context):
        return "of a class"
