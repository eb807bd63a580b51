"""Which cluster answers, and which topics it has."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from counterfoil.errors import DependencyUnreachable
from counterfoil.kafka.connection import client_options
from counterfoil.settings import Settings

ANSWER_WITHIN_S = 5.0
RETENTION = "retention.ms"


class Cluster:
    """Asks the cluster through an admin client that is made anew after any failure."""

    def __init__(self, settings: Settings) -> None:
        self._servers = settings.kafka_bootstrap_servers
        self._options = client_options(settings)
        self._client: AIOKafkaAdminClient | None = None
        self._asking = asyncio.Lock()

    async def cluster_id(self) -> str:
        """The cluster's id; raises DependencyUnreachable when it does not answer within 5 s."""
        return str((await self._ask("describe_cluster")).get("cluster_id") or "")

    async def create_topics(self, names: Iterable[str], partitions: int) -> list[str]:
        """Make the topics that are missing and answer their names; raises DependencyUnreachable."""
        there = set(await self._ask("list_topics"))
        missing = sorted(set(names) - there)
        if not missing:
            return []
        # replication as the broker's default has it; aiokafka takes -1 only beside an (empty) assignment
        wanted = [NewTopic(name, partitions, -1, replica_assignments={}) for name in missing]
        answer = await self._ask("create_topics", wanted)
        for topic, code, *rest in answer.topic_errors:
            error = for_code(code)
            if code and error is not TopicAlreadyExistsError:
                raise DependencyUnreachable(
                    f"Kafka refuses the topic {topic}: {error.__name__} {rest[0] if rest else ''}"
                )
        return missing

    async def partitions(self, names: Iterable[str]) -> dict[str, list[int]]:
        """Those of these topics that are there, each with its partitions; raises DependencyUnreachable."""
        wanted = sorted(set(names).intersection(await self._ask("list_topics")))
        if not wanted:
            return {}
        return {
            topic["topic"]: sorted(partition["partition"] for partition in topic["partitions"])
            for topic in await self._ask("describe_topics", wanted)
        }

    async def leaders(self, names: Iterable[str]) -> dict[str, dict[int, int]]:
        """Those of these topics that are there: partition → the broker that leads it, -1 where none does."""
        wanted = sorted(set(names).intersection(await self._ask("list_topics")))
        described = await self._ask("describe_topics", wanted) if wanted else ()
        return {
            topic["topic"]: {partition["partition"]: partition["leader"] for partition in topic["partitions"]}
            for topic in described
        }

    async def retention_ms(self, names: Iterable[str]) -> dict[str, int]:
        """How long each of these topics keeps a record, as far as the broker tells; -1 for ever."""
        # all that is set of each: the embedded broker cannot read a question for a single one
        wanted = [ConfigResource(ConfigResourceType.TOPIC, name) for name in sorted(names)]
        answers = await self._ask("describe_configs", wanted) if wanted else ()
        return {
            name: int(value)
            for answer in answers
            for _, _, _, name, entries in answer.resources
            for key, value, *_ in entries
            if key == RETENTION and value is not None
        }

    async def brokers(self) -> list[tuple[str, int]]:
        """Host and port of each broker, as the cluster announces them."""
        answer = await self._ask("describe_cluster")
        return [(broker["host"], broker["port"]) for broker in answer["brokers"]]

    async def held(self, group: str) -> frozenset[tuple[str, int]] | None:
        """What the members of a group read; None while it is given out anew, and where the broker does not tell."""
        (answer,) = await self._ask("describe_consumer_groups", [group])
        (_, _, state, _, _, members, *_), *_ = answer.groups
        if state in {"Empty", "Dead"}:
            return frozenset()
        assignments = [assignment for *_, assignment in (member[:5] for member in members)]
        if state != "Stable" or not all(assignments):
            return None
        return frozenset(
            (topic, number)
            for assignment in assignments
            for topic, numbers in ConsumerProtocolMemberAssignment.decode(assignment).assignment
            for number in numbers
        )

    async def close(self) -> None:
        """Let go of the connection."""
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(client.close(), ANSWER_WITHIN_S)

    async def _ask(self, method: str, *arguments: Any) -> Any:
        async with self._asking:
            return await self._ask_alone(method, *arguments)

    async def _ask_alone(self, method: str, *arguments: Any) -> Any:
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                if self._client is None:
                    self._client = AIOKafkaAdminClient(
                        **self._options, request_timeout_ms=int(ANSWER_WITHIN_S * 1000)
                    )
                    await self._client.start()
                return await getattr(self._client, method)(*arguments)
        except (KafkaError, OSError, TimeoutError) as error:
            await self.close()
            reason = str(error) or type(error).__name__
            raise DependencyUnreachable(f"Kafka at {self._servers}: {reason}") from error
