-- name: insert_coupon_usages
-- Add the usages that are not there yet; answers the keys that were added.
-- $1 order ids, $2 codes, $3 times, $4 source ids, $5 source offsets, sorted by key
INSERT INTO affiliate_coupon_usages (order_id, code, occurred_at, source_id, source_offset)
SELECT * FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::integer[], $5::bigint[])
ON CONFLICT (order_id, code) DO NOTHING
RETURNING order_id, code;

-- name: move_coupon_usages_earlier
-- The earlier of two times stands; answers the keys that were moved.
-- $1 order ids, $2 codes, $3 times, $4 source ids, $5 source offsets
WITH earlier AS (
  SELECT u.order_id, u.code, s.occurred_at, s.source_id, s.source_offset
  FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::integer[], $5::bigint[])
    AS s(order_id, code, occurred_at, source_id, source_offset)
  JOIN affiliate_coupon_usages AS u ON u.order_id = s.order_id AND u.code = s.code
  WHERE s.occurred_at < u.occurred_at
  ORDER BY u.order_id, u.code
  FOR UPDATE OF u
)
UPDATE affiliate_coupon_usages AS u
SET occurred_at = e.occurred_at, source_id = e.source_id, source_offset = e.source_offset
FROM earlier AS e
WHERE u.order_id = e.order_id AND u.code = e.code AND e.occurred_at < u.occurred_at
RETURNING u.order_id, u.code;

-- name: find_new_coupon_usages
-- Of these usages those that are not in the ledger, or there at a later time: the others change nothing.
-- $1 order ids, $2 codes, $3 times in microseconds since 2000: each as one text, separated by U+001F. Sub-selects, or the
-- planner counts them while the plan is new, and reads the whole ledger for each batch.
SELECT s.order_id, s.code
FROM unnest(string_to_array((SELECT $1), E'\x1f'), string_to_array((SELECT $2), E'\x1f'),
            string_to_array((SELECT $3), E'\x1f')::bigint[])
  AS s(order_id, code, microseconds)
LEFT JOIN affiliate_coupon_usages AS u ON u.order_id = s.order_id AND u.code = s.code
WHERE u.order_id IS NULL OR timestamptz '2000-01-01Z' + s.microseconds * interval '1 microsecond' < u.occurred_at;

-- name: drift_of_affiliate_coupons
-- Coupons whose stored counts are not what their ledgers say, a row missing included.
WITH counted AS (
  SELECT code, sum(usages)::bigint AS usages, sum(adjustments)::bigint AS adjustments
  FROM (
    SELECT code, count(*) AS usages, 0 AS adjustments FROM affiliate_coupon_usages WHERE reversed_at IS NULL GROUP BY code
    UNION ALL
    SELECT code, 0, sum(delta) FROM affiliate_coupon_adjustments GROUP BY code
  ) AS ledgers
  GROUP BY code
), compared AS (
  SELECT coalesce(c.code, k.code) AS key, c.times_used, c.usage_count,
         coalesce(k.usages, 0) AS usages, coalesce(k.adjustments, 0) AS adjustments
  FROM affiliate_coupons AS c FULL JOIN counted AS k ON k.code = c.code
)
SELECT key, 'times_used' AS counter, times_used::text AS stored, (usages + adjustments)::text AS counted
FROM compared WHERE times_used IS DISTINCT FROM usages + adjustments
UNION ALL
SELECT key, 'usage_count', usage_count::text, usages::text
FROM compared WHERE usage_count IS DISTINCT FROM usages
ORDER BY 1, 2;

-- name: lock_affiliate_coupon
-- Hold one coupon's row, made when it is missing, so that a fresh statement can recount it.
-- $1 code
INSERT INTO affiliate_coupons AS c (code) VALUES ($1)
ON CONFLICT (code) DO UPDATE SET updated_at = c.updated_at;

-- name: recount_affiliate_coupon
-- Set one held coupon to what its ledgers say.
-- $1 code
UPDATE affiliate_coupons
SET usage_count = counted.usages, times_used = counted.usages + counted.adjustments,
    adjusted = adjusted OR counted.adjustments <> 0, updated_at = now()
FROM (
  SELECT (SELECT count(*) FROM affiliate_coupon_usages WHERE code = $1 AND reversed_at IS NULL) AS usages,
         (SELECT coalesce(sum(delta), 0) FROM affiliate_coupon_adjustments WHERE code = $1)::bigint AS adjustments
) AS counted
WHERE code = $1;

-- name: count_affiliate_coupons
-- How many coupons there are to verify.
SELECT count(*) FROM affiliate_coupons;

-- name: drift_of_reversed_usages
-- Canceled orders' usages that are not marked as such, and so are counted; a key is the order.
SELECT c.order_id AS key, 'reversed_at of ' || u.code AS counter, 'never' AS stored, (c.canceled_at AT TIME ZONE 'UTC')::text AS counted
FROM order_cancellations AS c JOIN affiliate_coupon_usages AS u ON u.order_id = c.order_id
WHERE u.reversed_at IS NULL
ORDER BY 1, 2;

-- name: hold_order_ledgers
-- Keep cancellations of an order from coming or going, so that a fresh statement can mark what it brought.
-- $1 order
SELECT pg_advisory_xact_lock_shared(3087, 1) FROM (SELECT $1::text) AS one;

-- name: reverse_usages
-- Mark a canceled order's usages.
-- $1 order
UPDATE affiliate_coupon_usages AS u SET reversed_at = c.canceled_at
FROM order_cancellations AS c
WHERE c.order_id = $1 AND u.order_id = c.order_id AND u.reversed_at IS NULL;

-- name: count_reversed_usages
-- How many usages of canceled orders there are to verify.
SELECT count(*) FROM order_cancellations AS c JOIN affiliate_coupon_usages AS u ON u.order_id = c.order_id;
