"""Apache Kafka in a container, where a Docker engine answers."""

from __future__ import annotations

import functools
import gc
import secrets
import warnings
from typing import Any


@functools.cache
def docker_missing() -> str | None:
    """Why no container can run here, or None."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        missing = _asked_engine()
        gc.collect()  # a client that gets no answer leaves its socket open
    return missing


def _asked_engine() -> str | None:
    try:
        import docker
    except ImportError:
        return "the docker package is not installed"
    try:
        client = docker.from_env(timeout=5)
        client.ping()
        client.close()
    except Exception as error:  # noqa: BLE001 - whatever it is, no engine answers
        return f"no Docker engine answers ({type(error).__name__})"
    return None


class KafkaInContainer:
    """Confluent's image of Apache Kafka, in KRaft mode, for a whole test run."""

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # testcontainers moves its modules about, and says so
            from testcontainers.community.kafka import KafkaContainer
        container: Any = KafkaContainer().with_kraft().with_cluster_id(secrets.token_urlsafe(16))
        container.with_env("KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR", "1")
        container.with_env("KAFKA_TRANSACTION_STATE_LOG_MIN_ISR", "1")
        container.with_env("KAFKA_GROUP_MIN_SESSION_TIMEOUT_MS", "500")
        self._container = container
        self.bootstrap_servers = ""

    def start(self) -> None:
        """Pull the image if need be, and return when the broker is up."""
        self._container.start()
        self.bootstrap_servers = self._container.get_bootstrap_server()

    def stop(self) -> None:
        """Remove the container."""
        self._container.stop()
