-- name: hold_orders_shared
-- Take the lock of the order ledgers before rows that a cancellation, which holds it exclusively, may wait for.
SELECT pg_advisory_xact_lock_shared(3087, 1);

-- name: insert_order_cancellations
-- Add the cancellations that are not there yet; answers the orders that were added.
-- $1 order ids, $2 times, $3 reasons, $4 source ids, $5 source offsets, sorted by order
INSERT INTO order_cancellations (order_id, canceled_at, reason, source_id, source_offset)
SELECT * FROM unnest($1::text[], $2::timestamptz[], $3::text[], $4::integer[], $5::bigint[])
ON CONFLICT (order_id) DO NOTHING
RETURNING order_id;

-- name: move_order_cancellations_earlier
-- Of two cancellations of an order the earlier stands, then the smaller reason; answers the orders that were moved.
-- $1 order ids, $2 times, $3 reasons, $4 source ids, $5 source offsets
UPDATE order_cancellations AS c
SET canceled_at = s.canceled_at, reason = s.reason, source_id = s.source_id, source_offset = s.source_offset
FROM unnest($1::text[], $2::timestamptz[], $3::text[], $4::integer[], $5::bigint[])
  AS s(order_id, canceled_at, reason, source_id, source_offset)
WHERE c.order_id = s.order_id
  AND (s.canceled_at, coalesce(s.reason, '')) < (c.canceled_at, coalesce(c.reason, ''))
RETURNING c.order_id;

-- name: insert_order_refunds
-- Add the refunds that are not there yet; answers the keys that were added.
-- $1 order ids, $2 refund ids, $3 times, $4 amounts, $5 currencies or nulls, $6 source ids, $7 source offsets, sorted by key
INSERT INTO order_refunds (order_id, refund_id, occurred_at, amount, currency, source_id, source_offset)
SELECT * FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::numeric[], $5::text[], $6::integer[], $7::bigint[])
ON CONFLICT (order_id, refund_id) DO NOTHING
RETURNING order_id, refund_id;

-- name: replace_order_refunds
-- Of two contents the one of the earlier time stands, then the smaller one; answers the keys that were replaced.
-- $1 order ids, $2 refund ids, $3 times, $4 amounts, $5 currencies or nulls, $6 source ids, $7 source offsets
WITH winning AS (
  SELECT s.*, refund_content(r) AS refused, r.source_id AS refused_source_id, r.source_offset AS refused_offset
  FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::numeric[], $5::text[], $6::integer[], $7::bigint[])
    AS s(order_id, refund_id, occurred_at, amount, currency, source_id, source_offset)
  JOIN order_refunds AS r ON r.order_id = s.order_id AND r.refund_id = s.refund_id
  WHERE (s.occurred_at, s.amount, coalesce(s.currency, '')) < (r.occurred_at, r.amount, coalesce(r.currency, ''))
  ORDER BY r.order_id, r.refund_id
  FOR UPDATE OF r
), kept AS (
  INSERT INTO refused_facts (order_id, topic, content, source_id, source_offset)
  SELECT order_id, 'order.refunded', refused, refused_source_id, refused_offset FROM winning
  ON CONFLICT DO NOTHING
)
UPDATE order_refunds AS r
SET occurred_at = w.occurred_at, amount = w.amount, currency = w.currency,
    source_id = w.source_id, source_offset = w.source_offset
FROM winning AS w
WHERE r.order_id = w.order_id AND r.refund_id = w.refund_id
  AND (w.occurred_at, w.amount, coalesce(w.currency, '')) < (r.occurred_at, r.amount, coalesce(r.currency, ''))
RETURNING r.order_id, r.refund_id;

-- name: keep_refused_order_refunds
-- Keep those of these refunds whose content is not the one that stands; answers those that were not kept before.
-- $1 order ids, $2 refund ids, $3 times, $4 amounts, $5 currencies or nulls, $6 source ids, $7 source offsets
INSERT INTO refused_facts (order_id, topic, content, source_id, source_offset)
SELECT s.order_id, 'order.refunded', content, s.source_id, s.source_offset
FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::numeric[], $5::text[], $6::integer[], $7::bigint[])
  AS s(order_id, refund_id, occurred_at, amount, currency, source_id, source_offset)
JOIN order_refunds AS r ON r.order_id = s.order_id AND r.refund_id = s.refund_id
CROSS JOIN LATERAL refund_content(
  ROW(s.order_id, s.refund_id, s.amount, s.currency, s.occurred_at, s.source_id, s.source_offset)::order_refunds) AS content
WHERE content <> refund_content(r)
ON CONFLICT DO NOTHING
RETURNING order_id;

-- name: find_new_order_refunds
-- Of these refunds those that are not in the ledger, or there with a content that gives way.
-- $1 order ids, $2 refund ids, $3 times, $4 amounts, $5 currencies or nulls
SELECT s.order_id, s.refund_id
FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::numeric[], $5::text[])
  AS s(order_id, refund_id, occurred_at, amount, currency)
LEFT JOIN order_refunds AS r ON r.order_id = s.order_id AND r.refund_id = s.refund_id
WHERE r.order_id IS NULL
   OR (s.occurred_at, s.amount, coalesce(s.currency, '')) < (r.occurred_at, r.amount, coalesce(r.currency, ''));

-- name: insert_order_totals
-- Add the totals that are not there yet; answers the orders that were added.
-- $1 order ids, $2 times, $3 totals, $4 currencies, $5 source ids, $6 source offsets, sorted by order
INSERT INTO order_totals (order_id, occurred_at, total, currency, source_id, source_offset)
SELECT * FROM unnest($1::text[], $2::timestamptz[], $3::numeric[], $4::text[], $5::integer[], $6::bigint[])
ON CONFLICT (order_id) DO NOTHING
RETURNING order_id;

-- name: replace_order_totals
-- Of two contents the one of the earlier time stands, then the smaller one; answers the orders that were replaced.
-- $1 order ids, $2 times, $3 totals, $4 currencies, $5 source ids, $6 source offsets
WITH winning AS (
  SELECT s.*
  FROM unnest($1::text[], $2::timestamptz[], $3::numeric[], $4::text[], $5::integer[], $6::bigint[])
    AS s(order_id, occurred_at, total, currency, source_id, source_offset)
  JOIN order_totals AS t ON t.order_id = s.order_id
  WHERE (s.occurred_at, s.total, s.currency) < (t.occurred_at, t.total, t.currency)
  ORDER BY t.order_id
  FOR UPDATE OF t
)
UPDATE order_totals AS t
SET occurred_at = w.occurred_at, total = w.total, currency = w.currency,
    source_id = w.source_id, source_offset = w.source_offset
FROM winning AS w
WHERE t.order_id = w.order_id AND (w.occurred_at, w.total, w.currency) < (t.occurred_at, t.total, t.currency)
RETURNING t.order_id;

-- name: find_new_order_totals
-- Of these totals those that are not in the ledger, or there with a content that gives way.
-- $1 order ids, $2 times, $3 totals, $4 currencies
SELECT s.order_id
FROM unnest($1::text[], $2::timestamptz[], $3::numeric[], $4::text[]) AS s(order_id, occurred_at, total, currency)
LEFT JOIN order_totals AS t ON t.order_id = s.order_id
WHERE t.order_id IS NULL OR (s.occurred_at, s.total, s.currency) < (t.occurred_at, t.total, t.currency);
