"""Every metric, one line each. Never a label by code, order or SKU: their number has no bound."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder

from counterfoil.telemetry.health import Health

PREFIX = "counterfoil"
RECORDS = (1, 10, 50, 100, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000)
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
VISITS = (1, 5, 15, 60, 300, 900, 3_600, 21_600, 86_400, 259_200, 604_800, 2_592_000)
"""Seconds, from one to thirty days: how long people take."""

DELIVERIES = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3_600, 21_600, 86_400)
"""Seconds: mostly soon, and after an outage of the channel once it is back."""

VOUCHERS = (1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1_000)

prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter that nobody reads


class Description(NamedTuple):
    """What a metric is called, its kind (counter, gauge, histogram), its labels and its meaning."""

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str


class Metrics:
    """The worker's metrics in a registry of their own."""

    def __init__(self, version: str = "") -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self.descriptions: list[Description] = []

        # The road of a record
        counter, gauge, histogram = self._counter, self._gauge, self._histogram
        self.records = counter(
            "records", "records read: applied, duplicate, dead or skipped", "topic", "outcome"
        )
        self.normalised = counter("normalised", "values stored otherwise than sent", "topic", "field")
        self.dead_letters = counter("dead_letters", "records parked, by the rule they broke", "topic", "kind")
        self.refused_facts = counter(
            "refused_facts", "contents that do not stand against another of the same fact", "topic"
        )
        self.stale_assignments = counter(
            "stale_assignments", "batches dropped: another worker owns the partition"
        )
        self.rebalances = counter("rebalances", "times that the group gave out its partitions anew")
        self.logs_replaced = counter(
            "logs_replaced", "partitions begun anew because their log is another one"
        )
        self.position = gauge("position", "the offset to be read next", "topic", "partition")
        self.lag_records = gauge("lag_records", "records between position and log end", "topic", "partition")
        self.oldest_unread_seconds = gauge(
            "oldest_unread_seconds", "age of the oldest unread record", "topic"
        )
        self.paused = gauge("paused", "1 while the breaker holds the topic", "topic")

        # What is not read, of all workers together: where the schedule runs
        self.positions_standing_still = gauge(
            "positions_standing_still", "partitions whose position stays before a record", "topic"
        )
        self.offsets_lost = gauge(
            "offsets_lost", "offsets that retention took before they were read, ever", "topic"
        )
        self.partitions_without_consumer = gauge(
            "partitions_without_consumer", "partitions with records that no worker reads", "topic"
        )
        self.partitions_missing = gauge(
            "partitions_missing", "partitions that should be read and that Kafka does not have", "topic"
        )

        # Batches
        self.batch_retries = counter("batch_retries", "batches begun again, by class of SQLSTATE", "reason")
        self.batch_records = histogram("batch_records", "records of a transaction", RECORDS)
        self.batch_seconds = histogram("batch_seconds", "from a batch's first look to its commit", SECONDS)

        # Vouchers: of the claims that this worker has written, and of everything where the schedule runs
        self.scan_to_claim_seconds = histogram(
            "scan_to_claim_seconds", "from a customer's first scan of a voucher to his claim", VISITS
        )
        self.wallet_size = histogram(
            "wallet_size", "vouchers of a customer once he has claimed one", VOUCHERS
        )
        self.scans_per_minute = gauge("scans_per_minute", "scans of the last full minute, by their own time")
        self.unique_scanners = gauge("unique_scanners", "different users among these")
        self.scan_places = gauge("scan_places", "different places among these")
        self.scan_to_claim_ratio = gauge(
            "scan_to_claim_ratio", "claims for each scan, of today (UTC); NaN before the first scan"
        )
        self.claim_to_redemption_ratio = gauge(
            "claim_to_redemption_ratio",
            "redemptions for each claim, of today (UTC); NaN before the first claim",
        )

        # Inventory: where the schedule runs
        self.products = gauge("products", "products that anything has told of")
        self.low_stock_products = gauge("low_stock_products", "those whose stock is below their threshold")

        # Alerts
        self.relayed = counter("relayed", "records that the relay has published", "topic")
        self.outbox_rows = gauge(
            "outbox_rows", "what waits in the outbox to be published; where a relay runs"
        )
        self.outbox_oldest_seconds = gauge("outbox_oldest_seconds", "age of the oldest row of the outbox")
        self.notifications = counter(
            "notifications",
            "what became of notifications: sent, failed, expired, or pending again after an attempt that failed",
            "channel",
            "status",
        )
        self.notifications_pending = gauge(
            "notifications_pending", "notifications that wait or are being sent", "channel"
        )
        self.notification_seconds = histogram(
            "notification_seconds", "from the alert's cause to the channel's answer", DELIVERIES
        )

        # Verification: of the last recount that any worker has kept
        self.counter_drift = gauge(
            "counter_drift", "numbers that the last recount found to be not what their ledgers say", "table"
        )
        self.verified_timestamp_seconds = gauge(
            "verified_timestamp_seconds", "when that was, in seconds since 1970; 0 before the first"
        )

        # Copies of dead letters: where a relay runs and they are asked for
        self.dead_letters_copied = counter(
            "dead_letters_copied", "copies of dead letters that were published", "topic"
        )
        self.dead_letter_copies_waiting = gauge(
            "dead_letter_copies_waiting", "copies of dead letters that are to be published"
        )

        # HTTP
        self.query_seconds = histogram(
            "query_seconds", "from asking PostgreSQL to its answer, by what is read", SECONDS, "query"
        )

        # The process
        self.ready = gauge("ready", "1 when /readyz answers 200")
        self.live = gauge("live", "1 when /livez answers 200")
        self.build_info = gauge("build_info", "always 1; the version is the label", "version")

        if version:
            self.build_info.labels(version).set(1)
        ProcessCollector(registry=self.registry)

    def observe(self, health: Health) -> None:
        """Let `ready` and `live` follow the worker's health."""
        self.ready.set_function(lambda: float(health.ready))
        self.live.set_function(lambda: float(health.live))

    def observe_values(self, histogram: str, values: Iterable[float]) -> None:
        """Observe values of a histogram that is named as its attribute here."""
        observe = getattr(self, histogram).observe
        for value in values:
            observe(value)

    def count(self, counter: str, labels: Sequence[str], count: int) -> None:
        """Add to a counter that is named as its attribute here."""
        getattr(self, counter).labels(*labels).inc(count)

    def exposition(self, accept: str = "") -> tuple[bytes, str]:
        """The registry as text, with its content type: OpenMetrics where `accept` asks for it."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type

    def value(self, name: str, labels: Mapping[str, str] | None = None) -> float:
        """A sample's value, 0 when there is none; for tests and the `demo`."""
        return self.registry.get_sample_value(f"{PREFIX}_{name}", dict(labels or {})) or 0.0

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        self._describe(f"{name}_total", "counter", labels, meaning)
        return Counter(f"{PREFIX}_{name}", meaning, labels, registry=self.registry)

    def _gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        self._describe(name, "gauge", labels, meaning)
        return Gauge(f"{PREFIX}_{name}", meaning, labels, registry=self.registry)

    def _histogram(self, name: str, meaning: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        self._describe(name, "histogram", labels, meaning)
        return Histogram(f"{PREFIX}_{name}", meaning, labels, buckets=buckets, registry=self.registry)

    def _describe(self, name: str, kind: str, labels: tuple[str, ...], meaning: str) -> None:
        self.descriptions.append(Description(f"{PREFIX}_{name}", kind, labels, meaning))


def describe() -> list[Description]:
    """Every metric that `/metrics` shows, in reading order; the documentation is made from it."""
    process = ProcessCollector(registry=None).collect()
    suffixes = {"counter": "_total"}  # left out of a counter's name until it is exposed
    return Metrics().descriptions + [
        Description(m.name + suffixes.get(m.type, ""), m.type, (), m.documentation) for m in process
    ]
