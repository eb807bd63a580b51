"""What a worker knows of the partitions that it holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:

    class Partition(NamedTuple):
        """A topic's partition; at run time aiokafka's own, which is the same and untyped."""

        topic: str
        partition: int

else:
    from aiokafka import TopicPartition as Partition


class Anchor(NamedTuple):
    """The last record that was accounted for: the same offset with another timestamp is another log."""

    offset: int
    timestamp: int


@dataclass(slots=True)
class PartitionState:
    """What this worker knows of a partition that it holds.

    `stored` is the position in the database, `expected` the offset wanted next (beyond it while records are in flight),
    `sought` where reading was last begun, None before the first seek; `log_begin` is the log's beginning where that was
    found behind what was wanted: what is before it was lost.
    """

    partition: Partition
    source_id: int
    stored: int
    expected: int
    anchor: Anchor | None = None
    sought: int | None = None
    suspected: set[tuple[int, int]] = field(default_factory=set)
    unread_since: int | None = None
    log_begin: int = 0
    cluster_id: str = ""
