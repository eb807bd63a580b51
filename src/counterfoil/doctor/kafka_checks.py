"""What is wrong with Kafka: how it is reached, and the topics."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator, Mapping

from aiokafka.conn import create_conn
from aiokafka.errors import (
    AuthenticationFailedError,
    IllegalSaslStateError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)

from counterfoil.doctor.findings import LOOK_WITHIN_S, Finding, plural, problem, some, warning, well
from counterfoil.errors import DependencyUnreachable, InvalidSetting
from counterfoil.kafka.cluster import Cluster
from counterfoil.kafka.connection import client_options
from counterfoil.settings import PREFIX, Settings

SERVERS = f"{PREFIX}KAFKA_BOOTSTRAP_SERVERS"
PROTOCOL = f"{PREFIX}KAFKA_SECURITY_PROTOCOL"
MECHANISM = f"{PREFIX}KAFKA_SASL_MECHANISM"
LOGIN = f"{PREFIX}KAFKA_SASL_USERNAME and {PREFIX}KAFKA_SASL_PASSWORD"
AUTHORITY = f"{PREFIX}KAFKA_SSL_CAFILE"
OURS = f"{PREFIX}KAFKA_SSL_CERTFILE and {PREFIX}KAFKA_SSL_KEYFILE"

TRIED_WITHIN_S = 2.0
"""For one server of several, so that all are tried in the time of a look."""

REFUSED_LOGIN = (SaslAuthenticationFailed, AuthenticationFailedError)
REFUSED_MECHANISM = (UnsupportedSaslMechanismError, IllegalSaslStateError)


def open_cluster(settings: Settings) -> Cluster | Finding:
    """The cluster, to be asked; or what of the settings prevents that."""
    try:
        return Cluster(settings)
    except InvalidSetting as error:
        return problem("kafka", str(error), "correct the variable that is named")


async def check_kafka(settings: Settings, cluster: Cluster) -> tuple[bool, list[Finding]]:
    """Whether Kafka answers; and what there is to say of how it is reached."""
    where = f"Kafka at {settings.kafka_bootstrap_servers}"
    try:
        brokers = await cluster.brokers()
    except DependencyUnreachable as error:
        reason, fix = await _first_reason(settings) or (str(error), f"correct {SERVERS}")
        return False, [problem("kafka", f"{where}: {reason}", fix)]
    away = [address for address in brokers if not await _answers(*address)]
    if away:
        names = some(f"{host}:{port}" for host, port in away)
        told = f"{where} answers, but names brokers that can't be reached from here: {names}"
        return True, [problem("kafka", told, "correct the brokers' advertised.listeners, or let us through")]
    return True, [well("kafka", f"{where} answers, {plural(len(brokers), 'broker')}")]


async def _first_reason(settings: Settings) -> tuple[str, str] | None:
    """Why the first server that can be blamed does not serve us, and the setting to look at."""
    options = client_options(settings)
    tried = await asyncio.gather(*(_why(host, port, options) for host, port in _servers(settings)))
    return next((why for why in tried if why), None)


def _servers(settings: Settings) -> Iterator[tuple[str, int]]:
    for server in settings.kafka_bootstrap_servers.split(","):
        host, _, port = server.strip().rpartition(":")
        yield (host.strip("[]"), int(port)) if host and port.isdigit() else (server.strip(), 9092)


async def _answers(host: str, port: int) -> bool:
    try:
        async with asyncio.timeout(TRIED_WITHIN_S):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


async def _why(host: str, port: int, options: Mapping[str, object]) -> tuple[str, str] | None:
    """Why this server doesn't serve us, and the setting to look at; None where it does."""
    if not await _answers(host, port):
        return f"nothing answers at {host}:{port}", f"start Kafka, or correct {SERVERS}"
    wanted = {
        name: value for name, value in options.items() if name not in {"bootstrap_servers", "client_id"}
    }
    try:
        async with asyncio.timeout(LOOK_WITHIN_S):
            connection = await create_conn(host, port, request_timeout_ms=LOOK_WITHIN_S * 1000, **wanted)
    except (KafkaError, OSError, TimeoutError) as error:
        return await _blame(host, port, str(options["security_protocol"]), error)
    connection.close()
    is_encrypted = str(options["security_protocol"]).endswith("SSL")
    if not is_encrypted and not str(options["security_protocol"]).startswith("SASL"):
        return (
            f"{host}:{port} takes our connection and gives no answer",
            f"see whether it wants a login: {PROTOCOL}",
        )
    return None


async def _blame(host: str, port: int, protocol: str, error: BaseException) -> tuple[str, str]:
    """The setting that an error points at."""
    found = _of_login(error) or _of_certificates(error) or await _of_encryption(host, port, protocol)
    if found is None and protocol.startswith("SASL"):
        found = "ends the connection when we log in", f"correct {PROTOCOL} and {MECHANISM}"
    told, fix = found or (f"answers with {error or type(error).__name__}", f"correct {PROTOCOL}")
    return f"{host}:{port} {told}", fix


def _of_login(error: BaseException) -> tuple[str, str] | None:
    if isinstance(error, REFUSED_LOGIN):
        return "refuses the login", f"correct {LOGIN}"
    if isinstance(error, REFUSED_MECHANISM):
        return "does not take this way of logging in", f"correct {MECHANISM}, or {PROTOCOL}"
    return None


def _of_certificates(error: BaseException) -> tuple[str, str] | None:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"has a certificate that we don't trust: {error.verify_message}", f"correct {AUTHORITY}"
    if isinstance(error, ssl.SSLError) and "ALERT" in str(error.reason):
        return f"refuses our certificate: {error.reason}", f"correct {OURS}"
    return None


async def _of_encryption(host: str, port: int, protocol: str) -> tuple[str, str] | None:
    """What to say where one side speaks TLS and the other does not."""
    we, they = protocol.endswith("SSL"), await _speaks_tls(host, port)
    if they and not we:
        return "speaks TLS, and we do not", f"set {PROTOCOL} to {_with_tls(protocol)}"
    if we and not they:
        return "does not speak TLS, and we do", f"set {PROTOCOL} to {_without_tls(protocol)}"
    return None


async def _speaks_tls(host: str, port: int) -> bool:
    """Whether a TLS handshake goes through, whoever the server is; nothing is sent over it."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        async with asyncio.timeout(TRIED_WITHIN_S):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
    except ssl.SSLError as error:
        return "ALERT" in str(error.reason)  # it wants our certificate
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


def _with_tls(protocol: str) -> str:
    return "SSL" if protocol == "PLAINTEXT" else "SASL_SSL"


def _without_tls(protocol: str) -> str:
    return "PLAINTEXT" if protocol == "SSL" else "SASL_PLAINTEXT"


def check_topics(settings: Settings, leaders: Mapping[str, Mapping[int, int]]) -> list[Finding]:
    """Topics that this worker reads or publishes to and that are not there, or not as they should be."""
    wanted = [*settings.consumed_topics.values(), *settings.outgoing_topics.values()]
    missing = [topic for topic in wanted if topic not in leaders]
    lost = [
        f"{topic}/{n}"
        for topic in wanted
        for n, leader in sorted(leaders.get(topic, {}).items())
        if leader < 0
    ]
    few = [
        f"{t} {len(leaders[t])}"
        for t in wanted
        if t in leaders and len(leaders[t]) < settings.topic_partitions
    ]
    found = []
    if missing:
        fix = "start a worker, which makes them where it may, or make them yourself"
        found.append(problem("topics", f"not in Kafka: {some(missing)}", fix))
    if lost:
        found.append(
            problem("topics", f"no broker leads {some(lost)}", "bring back the brokers that hold them")
        )
    if few:
        told = f"fewer partitions than {PREFIX}TOPIC_PARTITIONS={settings.topic_partitions}: {some(few)}"
        fix = "kafka-topics.sh --alter --partitions, or lower that setting; no more workers than partitions can read"
        found.append(warning("topics", told, fix))
    return found or [well("topics", f"all {len(wanted)} topics are there")]
