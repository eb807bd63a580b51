-- name: explain_product
-- What is stored of a product, and until when its present level of stock is not told of again.
-- $1 SKU
SELECT p.name, p.stock, p.threshold, p.unit_price, 2 AS digits, p.supplier, p.last_restocked, p.previous_stock, p.counted_from,
       p.counted_from_event, p.created_at, p.updated_at, p.stock < p.threshold AS is_low, c.raised_at AS level_told_at,
       e.told_stock AS episode_told_stock, e.opened_at AS episode_opened_at
FROM inventory_products AS p
LEFT JOIN alert_cooldowns AS c ON c.kind = 'low-stock' AND c.cause = p.stock || ':' || p.sku
LEFT JOIN low_stock_episodes AS e ON e.sku = p.sku
WHERE p.sku = $1;

-- name: explain_counted_product
-- What the ledger and its closing say of a product.
-- $1 SKU
SELECT stock, last_restocked, counted_from, counted_from_event FROM inventory_products_counted WHERE sku = $1;

-- name: explain_absolute_of_stock
-- The latest absolute of a product, from which its stock is counted; a closed one has no row of its own any more.
-- $1 SKU
SELECT m.new_stock AS stock, m.occurred_at, m.event_id, e.event_type, e.event_id IS NULL AS is_closed, s.cluster_id, s.topic,
       s."partition", e.source_offset
FROM (
  SELECT * FROM stock_moves WHERE sku = $1 AND new_stock IS NOT NULL ORDER BY occurred_at DESC, event_id DESC LIMIT 1
) AS m
LEFT JOIN inventory_events AS e ON e.occurred_at = m.occurred_at AND e.event_id = m.event_id
LEFT JOIN stream_sources AS s ON s.id = e.source_id;

-- name: explain_deltas_of_stock
-- How many deltas there are after a product's latest absolute, and what they come to.
-- $1 SKU
SELECT count(*) AS deltas, coalesce(sum(m.quantity_delta), 0)::bigint AS sum
FROM stock_moves AS m
LEFT JOIN (
  SELECT occurred_at, event_id FROM stock_moves WHERE sku = $1 AND new_stock IS NOT NULL
  ORDER BY occurred_at DESC, event_id DESC LIMIT 1
) AS a ON true
WHERE m.sku = $1 AND m.new_stock IS NULL AND (a.event_id IS NULL OR (m.occurred_at, m.event_id) > (a.occurred_at, a.event_id));

-- name: explain_details_of_product
-- What was told last of each of a product's details, and whether that is what stands.
-- $1 SKU
SELECT f.field, d.value, d.occurred_at, d.event_id, f.stored IS NOT DISTINCT FROM d.value AS stands
FROM (SELECT 1) AS one
LEFT JOIN inventory_products AS p ON p.sku = $1,
LATERAL (VALUES (1, 'name', p.name), (2, 'threshold', p.threshold::text), (3, 'unit_price', p.unit_price::text),
                (4, 'supplier', p.supplier)) AS f(place, field, stored),
LATERAL latest_detail($1, f.field) AS d
WHERE d.value IS NOT NULL
ORDER BY f.place;

-- name: explain_changes_of_stock
-- A product's changes, newest first, how each is part of its stock, and how many there are.
-- $1 SKU, $2 limit
SELECT e.occurred_at, e.event_id, e.event_type, e.old_stock, e.new_stock, e.quantity_delta, e.metadata, e.name, e.threshold,
       e.unit_price, 2 AS digits, e.supplier,
       CASE WHEN (e.occurred_at, e.event_id) = (a.occurred_at, a.event_id) THEN 'absolute'
            WHEN a.event_id IS NULL OR (e.occurred_at, e.event_id) > (a.occurred_at, a.event_id) THEN 'delta'
            ELSE 'before' END AS part,
       e.total, s.cluster_id, s.topic, s."partition", e.source_offset
FROM (
  SELECT *, (SELECT count(*) FROM inventory_events WHERE sku = $1 AND event_type <> 'low_stock') AS total
  FROM inventory_events WHERE sku = $1 AND event_type <> 'low_stock'
  ORDER BY occurred_at DESC, event_id DESC LIMIT $2
) AS e
LEFT JOIN (
  SELECT occurred_at, event_id FROM stock_moves WHERE sku = $1 AND new_stock IS NOT NULL
  ORDER BY occurred_at DESC, event_id DESC LIMIT 1
) AS a ON true
LEFT JOIN stream_sources AS s ON s.id = e.source_id
ORDER BY e.occurred_at DESC, e.event_id DESC;

-- name: explain_closing_of_stock
-- What the closed months of a product came to.
-- $1 SKU
SELECT (sums ->> 'stock')::bigint AS stock, (sums ->> 'counted_from')::timestamptz AS counted_from,
       sums ->> 'counted_from_event' AS counted_from_event, (sums ->> 'last_restocked')::timestamptz AS last_restocked,
       closed_before, closed_at
FROM ledger_closings
WHERE ledger = 'inventory_events' AND key = $1;

-- name: explain_refused_changes_of_stock
-- What was told of a product's changes once more, with another content that does not stand, and how much of it there is.
-- $1 SKU, $2 limit
SELECT r.content, count(*) OVER () AS total, s.cluster_id, s.topic, s."partition", r.source_offset
FROM refused_stock_changes AS r LEFT JOIN stream_sources AS s ON s.id = r.source_id
WHERE r.sku = $1
ORDER BY r.content ->> 'occurred_at' DESC, r.content ->> 'event_id', r.digest
LIMIT $2;

-- name: explain_alerts_of_stock
-- What was told of a product, newest first, and how much of it there is.
-- $1 SKU, $2 limit
SELECT alert_id, raised_at, payload ->> 'kind' AS kind, (payload ->> 'stock')::bigint AS stock,
       (payload ->> 'threshold')::bigint AS threshold, (payload ->> 'previous_stock')::bigint AS previous_stock,
       count(*) OVER () AS total
FROM alerts
WHERE subject = $1 AND kind = 'low-stock'
ORDER BY raised_at DESC, alert_id
LIMIT $2;

-- name: explain_notifications_of_alerts
-- On which channels some alerts were told, and what came of it.
-- $1 alert ids
SELECT alert_id, channel, status, attempts, created_at, next_attempt_at, sent_at, error
FROM notifications
WHERE alert_id = ANY ($1::text[])
ORDER BY alert_id, channel;
