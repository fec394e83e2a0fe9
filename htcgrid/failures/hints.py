"""What to do about failures that are caused by the environment of the handler, not by the handler."""

import re

_BOTO3 = "AWS's Python runtime includes boto3, and this one does not: pip install 'htcgrid[boto3]', or add it to [function] code"
_HINTS = (
    (re.compile(r"No module named '(boto3|botocore|s3transfer)\b"), _BOTO3),
    (
        re.compile(r"No module named '(?P<module>[\w.]+)'"),
        "{module} is not installed where the handler runs: install it there, or add it to [function] code or to one of its layers",
    ),
    (
        re.compile(
            r"NoCredentialsError|Unable to locate credentials|CredentialsProviderError"
            r"|Could not load credentials from any providers|Unable to get (IAM )?security credentials"
        ),
        'the handler has no AWS credentials: write credentials = "agent" or "role:ARN" in [function]',
    ),
    (re.compile(r"Runtime\.MalformedHandlerName"), 'write handler = "MODULE.FUNCTION" in [function], as "job.handler"'),
)


def hint(error_type: str, message: str) -> str:
    """What a user can do about it; empty if the cause is the handler itself, or is not known."""
    said = f"{error_type}: {message}"
    for pattern, text in _HINTS:
        if found := pattern.search(said):
            return text.format(**found.groupdict())
    return ""
