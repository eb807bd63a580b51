-- name: voucher_is_known
-- Whether anything was ever told of a voucher.
-- $1 voucher
SELECT EXISTS (SELECT FROM vouchers WHERE id = $1);

-- name: voucher_days
-- What is counted of a voucher on each day on which anything is, the earliest first.
-- $1 voucher, $2 first day, $3 last day
SELECT day, coalesce(scans, 0) AS scans, coalesce(customer_scans, 0) AS customer_scans,
       coalesce(business_scans, 0) AS business_scans, coalesce(camera_scans, 0) AS camera_scans,
       coalesce(gallery_scans, 0) AS gallery_scans, coalesce(link_scans, 0) AS link_scans,
       coalesce(share_scans, 0) AS share_scans, coalesce(anonymous_scans, 0) AS anonymous_scans,
       coalesce(impressions, 0) AS impressions, coalesce(claims, 0) AS claims, coalesce(timed_claims, 0) AS timed_claims,
       coalesce(scan_to_claim_s, 0) AS scan_to_claim_s, coalesce(redemptions, 0) AS redemptions,
       coalesce(failed_redemptions, 0) AS failed_redemptions, coalesce(timed_redemptions, 0) AS timed_redemptions,
       coalesce(claim_to_redemption_s, 0) AS claim_to_redemption_s
FROM (
  SELECT (hour AT TIME ZONE 'UTC')::date AS day, sum(scans)::bigint AS scans,
         sum(customer_scans)::bigint AS customer_scans, sum(business_scans)::bigint AS business_scans,
         sum(camera_scans)::bigint AS camera_scans, sum(gallery_scans)::bigint AS gallery_scans,
         sum(link_scans)::bigint AS link_scans, sum(share_scans)::bigint AS share_scans,
         sum(anonymous_scans)::bigint AS anonymous_scans
  FROM voucher_hourly
  WHERE voucher_id = $1 AND hour >= $2::date::timestamp AT TIME ZONE 'UTC'
    AND hour < ($3::date + 1)::timestamp AT TIME ZONE 'UTC'
  GROUP BY 1
) AS scanned
FULL JOIN (
  SELECT * FROM voucher_daily WHERE voucher_id = $1 AND day BETWEEN $2::date AND $3::date
) AS other USING (day)
ORDER BY day;

-- name: voucher_users_by_day
-- How many users scanned a voucher on each day: whoever did stands there once, with the day on which he did so before.
-- $1 voucher, $2 first day, $3 last day
SELECT day, sum(users)::bigint AS users
FROM voucher_returns
WHERE voucher_id = $1 AND day BETWEEN $2::date AND $3::date
GROUP BY day;

-- name: voucher_users
-- How many users scanned a voucher on any of these days: each is counted on the first of them, before which he was last
-- there on none of them.
-- $1 voucher, $2 first day, $3 last day
SELECT coalesce(sum(users), 0)::bigint
FROM voucher_returns
WHERE voucher_id = $1 AND day BETWEEN $2::date AND $3::date
  AND (previous_day < $2::date OR previous_day = '-infinity');

-- name: voucher_hours
-- The scans of a voucher in the last hours that have any, the latest first.
-- $1 voucher, $2 first day, $3 last day, $4 hours, at most
SELECT hour, scans
FROM voucher_hourly
WHERE voucher_id = $1 AND hour >= $2::date::timestamp AT TIME ZONE 'UTC'
  AND hour < ($3::date + 1)::timestamp AT TIME ZONE 'UTC'
ORDER BY hour DESC
LIMIT $4;

-- name: voucher_top_places
-- Where a voucher was scanned most: whole months by the month, and the days before and after them by the day.
-- $1 voucher, $2 first day, $3 last day, $4 places, at most
WITH whole AS (
  SELECT date_trunc('month', $2::date::timestamp + interval '1 month - 1 day')::date AS since,
         date_trunc('month', $3::date::timestamp + interval '1 day')::date AS until
)
SELECT place, sum(scans)::bigint AS scans
FROM (
  SELECT place, scans FROM voucher_place_months, whole
  WHERE voucher_id = $1 AND month >= since AND month < until
  UNION ALL
  SELECT place, scans FROM voucher_places, whole
  WHERE voucher_id = $1 AND day >= $2::date AND day < since AND day <= $3::date
  UNION ALL
  SELECT place, scans FROM voucher_places, whole
  WHERE voucher_id = $1 AND day >= greatest(since, until) AND day <= $3::date
) AS parts
GROUP BY place
ORDER BY scans DESC, place
LIMIT $4;
