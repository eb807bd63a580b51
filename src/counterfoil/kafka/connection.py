"""Connection options from the settings, for aiokafka's clients and for FastStream."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

from counterfoil.errors import InvalidSetting
from counterfoil.settings import Settings

if TYPE_CHECKING:
    from faststream.security import BaseSecurity


def client_options(settings: Settings) -> dict[str, Any]:
    """Keyword arguments of aiokafka's producer and admin client; raises InvalidSetting for unreadable files."""
    options: dict[str, Any] = {
        "bootstrap_servers": settings.kafka_bootstrap_servers,
        "client_id": "counterfoil",
        "security_protocol": settings.kafka_security_protocol,
        "ssl_context": ssl_context(settings),
    }
    if settings.kafka_security_protocol.startswith("SASL"):
        username, password = _credentials(settings)
        options |= {
            "sasl_mechanism": settings.kafka_sasl_mechanism,
            "sasl_plain_username": username,
            "sasl_plain_password": password,
        }
    return options


def faststream_security(settings: Settings) -> BaseSecurity:
    """The same for a FastStream broker."""
    # here, since commands that consume nothing need none of it
    from faststream.security import BaseSecurity, SASLPlaintext, SASLScram256, SASLScram512  # noqa: PLC0415

    context = ssl_context(settings)
    use_ssl = context is not None
    if not settings.kafka_security_protocol.startswith("SASL"):
        return BaseSecurity(ssl_context=context, use_ssl=use_ssl)
    kinds = {"PLAIN": SASLPlaintext, "SCRAM-SHA-256": SASLScram256, "SCRAM-SHA-512": SASLScram512}
    username, password = _credentials(settings)
    return kinds[settings.kafka_sasl_mechanism](
        username=username, password=password, ssl_context=context, use_ssl=use_ssl
    )


def ssl_context(settings: Settings) -> ssl.SSLContext | None:
    """The TLS context of the SSL protocols, None for the others; raises InvalidSetting for unreadable files."""
    if not settings.kafka_security_protocol.endswith("SSL"):
        return None
    try:
        context = ssl.create_default_context(cafile=settings.kafka_ssl_cafile)
        if settings.kafka_ssl_certfile:
            password = settings.kafka_ssl_password
            context.load_cert_chain(
                settings.kafka_ssl_certfile,
                settings.kafka_ssl_keyfile,
                password.get_secret_value() if password else None,
            )
    except (OSError, ssl.SSLError) as error:
        raise InvalidSetting(f"COUNTERFOIL_KAFKA_SSL_*: a file cannot be used: {error}") from None
    return context


def _credentials(settings: Settings) -> tuple[str, str]:
    if settings.kafka_sasl_username is None or settings.kafka_sasl_password is None:
        raise InvalidSetting(
            f"COUNTERFOIL_KAFKA_SASL_USERNAME and COUNTERFOIL_KAFKA_SASL_PASSWORD: "
            f"{settings.kafka_security_protocol} takes both"
        )
    return settings.kafka_sasl_username, settings.kafka_sasl_password.get_secret_value()
