"""What is set: each variable with its value, secrets masked, and where that comes from."""

from __future__ import annotations

from pydantic import SecretStr

from counterfoil.settings import (
    PREFIX,
    Settings,
    masked_address,
    masked_webhook,
    names_in_dotenv,
    names_in_environment,
    source_of,
)


def describe_settings(settings: Settings) -> list[dict[str, str]]:
    """Each variable, its value (secrets masked), where that comes from, and what it is for."""
    environment, dotenv = names_in_environment(), names_in_dotenv()
    return [
        {
            "variable": f"{PREFIX}{name.upper()}",
            "value": _masked(name, getattr(settings, name)),
            "source": _source(name, settings, environment, dotenv),
            "about": field.description or "",
        }
        for name, field in Settings.model_fields.items()
    ]


def _masked(name: str, value: object) -> str:
    if name.endswith("_url") and value is not None:
        mask = masked_webhook if name == "slack_webhook_url" else masked_address
        return mask(value.get_secret_value() if isinstance(value, SecretStr) else str(value))
    if isinstance(value, SecretStr):
        return "•••"
    if isinstance(value, tuple):
        return ",".join(value)
    if hasattr(value, "total_seconds"):
        return f"{value.total_seconds():g} s"
    return "" if value is None else str(value)


def _source(name: str, settings: Settings, environment: set[str], dotenv: set[str]) -> str:
    variable = source_of(name, environment | dotenv)
    if variable in environment:
        return f"environment {variable}" if variable != f"{PREFIX}{name.upper()}" else "environment"
    if variable in dotenv:
        return ".env"
    default = Settings.model_fields[name].default
    return "default" if getattr(settings, name) == default else "embedded parts"
