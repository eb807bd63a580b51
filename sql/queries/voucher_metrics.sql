-- name: observe_claims
-- What histograms are told of these claims: the seconds since each customer's first scan, where there was one before, and how
-- many vouchers are in their wallets, of which no more than a thousand are counted.
-- $1 customers, $2 vouchers
SELECT 'scan_to_claim_seconds' AS histogram, extract(epoch FROM c.claimed_at - c.first_scanned_at)::float8 AS value
FROM unnest($1::text[], $2::text[]) AS s(customer_id, voucher_id)
JOIN customer_vouchers AS c ON c.customer_id = s.customer_id AND c.voucher_id = s.voucher_id
WHERE c.first_scanned_at <= c.claimed_at
UNION ALL
SELECT 'wallet_size',
       (SELECT count(*) FROM (SELECT FROM customer_vouchers AS c WHERE c.customer_id = s.customer_id LIMIT 1001) AS counted)
FROM (SELECT DISTINCT customer_id FROM unnest($1::text[]) AS t(customer_id)) AS s;

-- name: sample_scans
-- The scans of the last full minute, by the database's clock, the users and the places in them; of a million at most.
SELECT count(*) AS scans, count(DISTINCT user_id) AS users, count(DISTINCT scan_place(location)) AS places
FROM (
  SELECT user_id, location FROM voucher_scans
  WHERE occurred_at >= date_trunc('minute', now()) - interval '1 minute' AND occurred_at < date_trunc('minute', now())
  LIMIT 1000000
) AS of_the_minute;

-- name: sample_conversion
-- The scans, claims and redemptions of today (UTC).
SELECT coalesce(sum(scans), 0)::float8 AS scans, coalesce(sum(claims), 0)::float8 AS claims,
       coalesce(sum(redemptions), 0)::float8 AS redemptions
FROM (
  SELECT scans, 0 AS claims, 0 AS redemptions FROM voucher_hourly
  WHERE hour >= date_trunc('day', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'
  UNION ALL
  SELECT 0, claims, redemptions FROM voucher_daily WHERE day >= (now() AT TIME ZONE 'UTC')::date
) AS of_today;
