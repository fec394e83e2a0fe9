"""`function_role_arn`: a role for the handler by IRSA, which is not the role of the agent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from htcgrid.spi import Function, Rejected

if TYPE_CHECKING:
    from htcgrid_eks.options import Options

_VOLUME = "function-role"
_FOLDER = "/var/run/secrets/htcgrid"
_AUDIENCE = "sts.amazonaws.com"
_TOKEN_SECONDS = 86_400


def add(spec: dict[str, Any], options: Options, function: Function) -> None:
    """Give the Lambda containers of a pod a token of its service account, and the role that SDKs assume with it.

    EKS's webhook does the same for the agent, but gives only one role to a whole pod.
    """
    if function.credentials != "none":
        raise Rejected(
            f"[function] credentials = {function.credentials!r}, and function_role_arn in the table of the plane: each says what "
            "handlers get. Leave one of them out."
        )
    token = {"serviceAccountToken": {"audience": _AUDIENCE, "expirationSeconds": _TOKEN_SECONDS, "path": "token"}}
    spec["volumes"].append({"name": _VOLUME, "projected": {"sources": [token]}})
    for container in spec["containers"]:
        if container["name"].startswith("lambda-"):
            container["volumeMounts"].append({"name": _VOLUME, "mountPath": _FOLDER, "readOnly": True})
            container["env"] += [
                {"name": "AWS_ROLE_ARN", "value": options.function_role_arn},
                {"name": "AWS_WEB_IDENTITY_TOKEN_FILE", "value": f"{_FOLDER}/token"},
                {"name": "AWS_STS_REGIONAL_ENDPOINTS", "value": "regional"},
            ]
