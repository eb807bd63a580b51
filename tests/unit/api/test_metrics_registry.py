"""The metrics: every one described, none shared between two workers."""

from __future__ import annotations

from counterfoil.telemetry.health import Health, Phase
from counterfoil.telemetry.metrics import Metrics, describe

EXPECTED = {
    "counterfoil_records_total": ("topic", "outcome"),
    "counterfoil_normalised_total": ("topic", "field"),
    "counterfoil_dead_letters_total": ("topic", "kind"),
    "counterfoil_refused_facts_total": ("topic",),
    "counterfoil_batch_records": (),
    "counterfoil_batch_seconds": (),
    "counterfoil_batch_retries_total": ("reason",),
    "counterfoil_stale_assignments_total": (),
    "counterfoil_rebalances_total": (),
    "counterfoil_logs_replaced_total": (),
    "counterfoil_lag_records": ("topic", "partition"),
    "counterfoil_oldest_unread_seconds": ("topic",),
    "counterfoil_position": ("topic", "partition"),
    "counterfoil_paused": ("topic",),
    "counterfoil_positions_standing_still": ("topic",),
    "counterfoil_offsets_lost": ("topic",),
    "counterfoil_partitions_without_consumer": ("topic",),
    "counterfoil_partitions_missing": ("topic",),
    "counterfoil_scan_to_claim_seconds": (),
    "counterfoil_wallet_size": (),
    "counterfoil_scans_per_minute": (),
    "counterfoil_unique_scanners": (),
    "counterfoil_scan_places": (),
    "counterfoil_scan_to_claim_ratio": (),
    "counterfoil_claim_to_redemption_ratio": (),
    "counterfoil_products": (),
    "counterfoil_low_stock_products": (),
    "counterfoil_relayed_total": ("topic",),
    "counterfoil_outbox_rows": (),
    "counterfoil_outbox_oldest_seconds": (),
    "counterfoil_notifications_total": ("channel", "status"),
    "counterfoil_notifications_pending": ("channel",),
    "counterfoil_notification_seconds": (),
    "counterfoil_counter_drift": ("table",),
    "counterfoil_verified_timestamp_seconds": (),
    "counterfoil_dead_letters_copied_total": ("topic",),
    "counterfoil_dead_letter_copies_waiting": (),
    "counterfoil_query_seconds": ("query",),
    "counterfoil_ready": (),
    "counterfoil_live": (),
    "counterfoil_build_info": ("version",),
}


def test_every_metric_is_described_with_its_labels() -> None:
    described = {metric.name: metric for metric in describe()}
    assert {
        name: metric.labels for name, metric in described.items() if name.startswith("counterfoil_")
    } == EXPECTED
    assert all(metric.meaning for metric in described.values())
    assert {metric.kind for metric in described.values()} == {"counter", "gauge", "histogram"}


def test_two_workers_metrics_are_apart() -> None:
    one, other = Metrics(), Metrics()
    one.records.labels("order.placed", "applied").inc(3)
    labels = {"topic": "order.placed", "outcome": "applied"}
    assert one.value("records_total", labels) == 3
    assert other.value("records_total", labels) == 0


def test_exposition_holds_no_created_series_and_names_the_version() -> None:
    text, content_type = Metrics("1.2.3").exposition()
    assert b'counterfoil_build_info{version="1.2.3"} 1.0' in text
    assert b"_created" not in text
    assert content_type.startswith("text/plain; version=0.0.4")


def test_openmetrics_is_given_where_it_is_asked_for() -> None:
    text, content_type = Metrics().exposition("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert text.endswith(b"# EOF\n")


def test_ready_and_live_follow_the_health() -> None:
    metrics, health = Metrics(), Health()
    metrics.observe(health)
    assert (metrics.value("ready"), metrics.value("live")) == (0, 1)
    health.phase = Phase.RUNNING
    assert metrics.value("ready") == 1
