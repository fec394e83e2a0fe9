"""What to do about failures whose cause is the place where the handler runs, and not the handler."""

import re

_BOTO3 = "AWS's Python runtime brings boto3 along, and this one does not: pip install 'htcgrid[boto3]', or add it to [function] code"
_HINTS = (
    (re.compile(r"No module named '(boto3|botocore|s3transfer)\b"), _BOTO3),
    (
        re.compile(r"No module named '(?P<module>[\w.]+)'"),
        "{module} is not where the handler runs: add it to [function] code or to one of its layers, or install it there",
    ),
    (
        re.compile(
            r"NoCredentialsError|Unable to locate credentials|CredentialsProviderError"
            r"|Could not load credentials from any providers|Unable to get (IAM )?security credentials"
        ),
        'the handler has no AWS credentials: write credentials = "agent" or "role:ARN" in [function]',
    ),
)


def hint(error_type: str, message: str) -> str:
    """What a user can do about it; empty where the handler itself is at fault, or nobody can tell."""
    said = f"{error_type}: {message}"
    for pattern, text in _HINTS:
        if found := pattern.search(said):
            return text.format(**found.groupdict())
    return ""
