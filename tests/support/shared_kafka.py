"""Apache Kafka for a whole test run: one process starts it, and those that run its tests ask that one where it is."""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Client, Listener

from counterfoil.errors import DependencyUnreachable
from support.apache_kafka import ApacheKafka, apache_by_maven, apache_kafka_missing
from support.containers import KafkaInContainer, docker_missing
from support.servers import Broker, servers_folder

Place = tuple[str, str]
"""Where a SharedKafka is asked: its address, and the key to it."""

MOST_WAITING = 64


class NoApacheKafka(Exception):
    """None can run here; its text names every reason."""


@contextmanager
def started_apache_kafka() -> Iterator[Broker]:
    """The first that starts, in a container or by Maven, until the block ends; else NoApacheKafka."""
    no_container = docker_missing()
    if no_container is None:
        try:
            container = KafkaInContainer()
            container.start()
        except Exception as error:  # noqa: BLE001 - an image that can't be pulled, mostly: Maven is next
            no_container = f"its container did not start: {type(error).__name__}: {error}"
        else:
            try:
                yield Broker(container.bootstrap_servers, "Apache Kafka in a container", 1_000)
            finally:
                container.stop()
            return
    no_maven = apache_kafka_missing()
    if no_maven is not None:
        raise NoApacheKafka(f"{no_container}; {no_maven}")
    with servers_folder() as folder, ApacheKafka(folder / "kafka") as kafka:
        yield Broker(kafka.bootstrap_servers, apache_by_maven(), 1_000)


class SharedKafka:
    """Started when it is first asked for, from whatever process; it ends with `close`, or with this process."""

    def __init__(self) -> None:
        key = secrets.token_bytes(16)
        self._listener = Listener(backlog=MOST_WAITING, authkey=key)
        self.place: Place = (str(self._listener.address), key.hex())
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._started = ExitStack()
        self._answer: Broker | Exception | None = None
        threading.Thread(target=self._serve, name="shared-kafka", daemon=True).start()

    def close(self) -> None:
        """End it, if it was started; nobody is answered after this."""
        self._closed.set()
        with self._lock:
            self._answer = DependencyUnreachable("the test run has ended")
            self._started.close()
        self._listener.close()

    def _serve(self) -> None:
        while not self._closed.is_set():
            with contextlib.suppress(EOFError, OSError), self._listener.accept() as asking:
                asking.send(self._asked())  # the errors: who asked did not wait, or we are closed

    def _asked(self) -> Broker | Exception:
        with self._lock:
            if self._answer is None:
                try:
                    self._answer = self._started.enter_context(started_apache_kafka())
                except Exception as error:  # noqa: BLE001 - it is raised where it was asked for
                    self._answer = error
            return self._answer


def shared_apache_kafka(place: Place) -> Broker:
    """The one of another process, once it answers; else what prevented it."""
    address, key = place
    with Client(address, authkey=bytes.fromhex(key)) as connection:
        answer = connection.recv()
    if isinstance(answer, Exception):
        raise answer
    return answer
