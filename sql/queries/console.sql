-- name: sum_of_positions
-- What became of a group's records, by topic, the accounts of replaced logs with them: no sum ever falls.
-- $1 group
SELECT topic, sum(applied)::bigint AS applied, sum(duplicates)::bigint AS duplicates, sum(dead)::bigint AS dead,
       sum(skipped)::bigint AS skipped, max(last_record_at) AS last_record_at, clock_timestamp() AS taken_at
FROM (
  SELECT topic, applied, duplicates, dead, skipped, last_record_at
  FROM stream_positions WHERE consumer_group = $1
  UNION ALL
  SELECT topic, applied, duplicates, dead, skipped, last_record_at
  FROM stream_positions_retired WHERE consumer_group = $1
) AS accounts
GROUP BY topic
ORDER BY topic;

-- name: headline_counters
-- What people ask for first; days are UTC.
WITH today AS (SELECT (now() AT TIME ZONE 'UTC')::date AS day)
SELECT (SELECT coalesce(sum(times_used), 0)::bigint FROM affiliate_coupons) AS coupon_uses,
       (SELECT coalesce(sum(times_used), 0)::bigint FROM promo_codes) AS promo_uses,
       (SELECT coalesce(sum(clicks), 0)::bigint FROM affiliate_daily, today
        WHERE affiliate_daily.day = today.day AND currency = '') AS clicks_today,
       (SELECT coalesce(sum(scans), 0)::bigint FROM voucher_hourly, today
        WHERE hour >= today.day::timestamp AT TIME ZONE 'UTC'
          AND hour < (today.day + 1)::timestamp AT TIME ZONE 'UTC') AS scans_today,
       coalesce(sum(v.claims), 0)::bigint AS claims_today,
       coalesce(sum(v.redemptions), 0)::bigint AS redemptions_today
FROM today LEFT JOIN voucher_daily AS v ON v.day = today.day;

-- name: sums_of_commissions
-- What is owed and paid to partners, by status and currency.
SELECT status, currency, currency_digits(currency) AS digits, sum(earnings) AS earnings
FROM commissions
GROUP BY status, currency
ORDER BY array_position(ARRAY['pending', 'approved', 'paid', 'canceled'], status), currency;

-- name: low_products
-- Products that are low, the emptiest first, and how many there are in all.
-- $1 limit
SELECT sku, name, stock, threshold, supplier, updated_at, count(*) OVER () AS total
FROM inventory_products
WHERE stock < threshold
ORDER BY stock, sku
LIMIT $1;

-- name: latest_dead_letters
-- Parked records that wait, and those that went through of late, newest first, with the head of each value.
-- $1 limit, $2 bytes of a value, $3 how long ago is of late
SELECT id, topic, "partition", "offset", substring(value FOR $2) AS value, octet_length(value) AS bytes, error_kind, error,
       first_seen_at, retried_at, resolved_at, resolution
FROM dead_letters
WHERE resolved_at IS NULL OR resolved_at > now() - $3::interval
ORDER BY id DESC
LIMIT $1;

-- name: count_open_dead_letters
-- How many parked records wait, by the rule they broke, the most frequent first.
SELECT error_kind, count(*) AS waiting
FROM dead_letters
WHERE resolved_at IS NULL
GROUP BY error_kind
ORDER BY waiting DESC, error_kind;

-- name: latest_alerts
-- The alerts that were raised last, with what became of each on every channel.
-- $1 limit
SELECT a.alert_id, a.kind, a.subject, a.payload, a.raised_at,
       coalesce(jsonb_agg(jsonb_build_object('channel', n.channel, 'status', n.status, 'attempts', n.attempts,
                                             'sent_at', n.sent_at, 'error', n.error)
                          ORDER BY n.channel) FILTER (WHERE n.channel IS NOT NULL), '[]') AS notifications
FROM (SELECT * FROM alerts ORDER BY raised_at DESC, alert_id LIMIT $1) AS a
LEFT JOIN notifications AS n ON n.alert_id = a.alert_id
GROUP BY a.alert_id, a.kind, a.subject, a.payload, a.raised_at
ORDER BY a.raised_at DESC, a.alert_id;
