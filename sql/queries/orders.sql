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
