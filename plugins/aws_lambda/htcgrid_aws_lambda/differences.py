"""What differs from what the config asks for, in words. Values of environment variables are never shown."""

from collections.abc import Mapping
from typing import Any

from htcgrid_aws_lambda.desired import Desired


def differences(wanted: Desired, found: Mapping[str, Any]) -> list[str]:
    """How `found` (a function's configuration as AWS gives it) differs, a line for each setting."""
    lines = []
    for name, value in wanted.settings.items():
        now = _as_asked(name, found)
        if name == "Environment":
            lines += _environment(value["Variables"], now["Variables"])
        elif now != value:
            lines.append(f"{name} from {_shown(now)} to {_shown(value)}")
    return lines


def _as_asked(name: str, found: Mapping[str, Any]) -> Any:
    if name == "Layers":
        return [layer["Arn"] for layer in found.get("Layers", [])]
    if name == "Environment":
        return {"Variables": found.get("Environment", {}).get("Variables", {})}
    if name == "EphemeralStorage":
        return {"Size": found.get("EphemeralStorage", {}).get("Size", 512)}
    if name == "ImageConfig":
        return found.get("ImageConfigResponse", {}).get("ImageConfig", {})
    return found.get(name)


def _environment(wanted: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    names = sorted(name for name in wanted.keys() | now.keys() if wanted.get(name) != now.get(name))
    return [f"Environment: {', '.join(names)}"] if names else []


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{_shown(part)}" for part in value.values()) or "none"
    if isinstance(value, list):
        return ", ".join(value) or "none"
    return str(value)
