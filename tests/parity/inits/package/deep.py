# ruff: noqa: ANN001, ANN201, ANN205
def handler(event, context):
    return __name__


class Handlers:
    @staticmethod
    def handler(event, context):
        return "of a class"
