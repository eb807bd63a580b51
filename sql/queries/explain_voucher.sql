-- name: explain_voucher
-- What voucher.created said of a voucher, and what is stored of it.
-- $1 voucher
SELECT v.business_id, v.title, v.expires_at, v.expires_at <= now() AS has_expired, v.created_at, v.scan_count, v.claim_count,
       v.redemption_count, v.impressions, v.updated_at, s.cluster_id, s.topic, s."partition", v.source_offset
FROM vouchers AS v LEFT JOIN stream_sources AS s ON s.id = v.source_id
WHERE v.id = $1;

-- name: explain_sums_of_voucher
-- What each table that is kept by voucher comes to; scans by their hours, since the ledger has no index by voucher.
-- $1 voucher, $2 days
SELECT h.*, d.*, r.*, u.*, w.*, a.*, c.*
FROM (
  SELECT coalesce(sum(scans), 0)::bigint AS scans_of_hours,
         coalesce(sum(scans) FILTER (WHERE hour < closed_before), 0)::bigint AS closed_scans_of_hours,
         coalesce(sum(scans) FILTER (WHERE hour >= (counterfoil_today() - $2::integer + 1)::timestamp AT TIME ZONE 'UTC'
                                       AND hour < (counterfoil_today() + 1)::timestamp AT TIME ZONE 'UTC'), 0)::bigint
           AS scans_of_span
  FROM voucher_hourly LEFT JOIN ledger_bounds ON ledger = 'voucher_scans'
  WHERE voucher_id = $1
) AS h, (
  SELECT coalesce(sum(impressions), 0)::bigint AS impressions_of_days, coalesce(sum(claims), 0)::bigint AS claims_of_days,
         coalesce(sum(redemptions), 0)::bigint AS redemptions_of_days,
         coalesce(sum(failed_redemptions), 0)::bigint AS failed_of_days
  FROM voucher_daily WHERE voucher_id = $1
) AS d, (
  SELECT coalesce(sum(users), 0)::bigint AS user_days,
         coalesce(sum(users) FILTER (WHERE previous_day = '-infinity'), 0)::bigint AS users,
         coalesce(sum(users) FILTER (WHERE day > counterfoil_today() - $2::integer AND day <= counterfoil_today()
                                       AND previous_day <= counterfoil_today() - $2::integer), 0)::bigint AS users_of_span
  FROM voucher_returns WHERE voucher_id = $1
) AS r, (
  SELECT count(*) AS scanner_days FROM voucher_scanner_days WHERE voucher_id = $1
) AS u, (
  SELECT count(*) AS wallets, count(claimed_at) AS claims FROM customer_vouchers WHERE voucher_id = $1
) AS w, (
  SELECT count(*) AS attempts, count(*) FILTER (WHERE successful) AS redemptions, count(*) FILTER (WHERE NOT successful) AS failed
  FROM redemption_attempts WHERE voucher_id = $1
) AS a, (
  SELECT coalesce(sum(scans) FILTER (WHERE hour < b.closed_before), 0)::bigint AS closed_scans
  FROM ledger_closings AS k
  LEFT JOIN ledger_bounds AS b ON b.ledger = k.ledger,
  jsonb_to_recordset(k.sums -> 'hours') AS h(hour timestamptz, scans bigint)
  WHERE k.ledger = 'voucher_scans' AND k.key = $1
) AS c;

-- name: explain_days_of_voucher
-- A voucher's days of a span that ends today, newest first.
-- $1 voucher, $2 days
SELECT day, coalesce(scans, 0) AS scans, coalesce(customer_scans, 0) AS customer_scans,
       coalesce(business_scans, 0) AS business_scans, coalesce(anonymous_scans, 0) AS anonymous_scans,
       coalesce(users, 0) AS users, coalesce(new_users, 0) AS new_users, coalesce(impressions, 0) AS impressions,
       coalesce(claims, 0) AS claims, coalesce(redemptions, 0) AS redemptions,
       coalesce(failed_redemptions, 0) AS failed_redemptions
FROM (
  SELECT (hour AT TIME ZONE 'UTC')::date AS day, sum(scans)::bigint AS scans, sum(customer_scans)::bigint AS customer_scans,
         sum(business_scans)::bigint AS business_scans, sum(anonymous_scans)::bigint AS anonymous_scans
  FROM voucher_hourly
  WHERE voucher_id = $1
    AND hour >= (counterfoil_today() - $2::integer + 1)::timestamp AT TIME ZONE 'UTC'
    AND hour < (counterfoil_today() + 1)::timestamp AT TIME ZONE 'UTC'
  GROUP BY 1
) AS scanned
FULL JOIN (
  SELECT day, sum(users)::bigint AS users, coalesce(sum(users) FILTER (WHERE previous_day = '-infinity'), 0)::bigint AS new_users
  FROM voucher_returns
  WHERE voucher_id = $1 AND day > counterfoil_today() - $2::integer AND day <= counterfoil_today()
  GROUP BY day
) AS seen USING (day)
FULL JOIN (
  SELECT day, impressions, claims, redemptions, failed_redemptions
  FROM voucher_daily
  WHERE voucher_id = $1 AND day > counterfoil_today() - $2::integer AND day <= counterfoil_today()
) AS told USING (day)
ORDER BY day DESC;

-- name: explain_places_of_voucher
-- Where a voucher was scanned in a span that ends today, the most frequent first, and how many places there are.
-- $1 voucher, $2 days, $3 limit
SELECT place, sum(scans)::bigint AS scans, count(*) OVER () AS total
FROM voucher_places
WHERE voucher_id = $1 AND day > counterfoil_today() - $2::integer AND day <= counterfoil_today()
GROUP BY place
ORDER BY scans DESC, place
LIMIT $3;

-- name: explain_states_of_voucher
-- How many rows of wallets a voucher has in each status.
-- $1 voucher
SELECT status, count(*) AS wallets, count(claimed_at) AS claims
FROM customer_vouchers WHERE voucher_id = $1
GROUP BY status
ORDER BY status;

-- name: explain_wallets_of_voucher
-- A voucher's rows of wallets, newest first, beside what the attempts and the days of scans say of their customers.
-- $1 voucher, $2 limit
SELECT c.customer_id, c.status, c.claimed_at, c.redeemed_at, a.redeemed_at AS counted_redeemed_at, c.first_scanned_at,
       d.first_at AS counted_first_scanned_at, c.metadata, c.notification_preferences, c.last_viewed_at,
       s.cluster_id, s.topic, s."partition", c.source_offset
FROM (
  SELECT * FROM customer_vouchers WHERE voucher_id = $1
  ORDER BY coalesce(claimed_at, redeemed_at) DESC NULLS LAST, customer_id LIMIT $2
) AS c
CROSS JOIN LATERAL (
  SELECT min(attempted_at) AS redeemed_at FROM redemption_attempts
  WHERE voucher_id = c.voucher_id AND customer_id = c.customer_id AND successful
) AS a
LEFT JOIN LATERAL (
  SELECT first_at FROM voucher_scanner_days
  WHERE voucher_id = c.voucher_id AND user_id = c.customer_id ORDER BY day LIMIT 1
) AS d ON true
LEFT JOIN stream_sources AS s ON s.id = c.source_id
ORDER BY coalesce(c.claimed_at, c.redeemed_at) DESC NULLS LAST, c.customer_id;

-- name: explain_attempts_of_voucher
-- A voucher's attempts to redeem it, newest first.
-- $1 voucher, $2 limit
SELECT a.attempt_id, a.attempted_at, a.business_id, a.customer_id, a.successful, a.failure_reason, a.device_info, a.location,
       a.metadata, s.cluster_id, s.topic, s."partition", a.source_offset
FROM redemption_attempts AS a LEFT JOIN stream_sources AS s ON s.id = a.source_id
WHERE a.voucher_id = $1
ORDER BY a.attempted_at DESC, a.attempt_id
LIMIT $2;

-- name: explain_failures_of_voucher
-- Why attempts to redeem a voucher failed, the most frequent reason first, and how many reasons there are.
-- $1 voucher, $2 limit
SELECT failure_reason, count(*) AS attempts, max(attempted_at) AS last_at, count(*) OVER () AS total
FROM redemption_attempts
WHERE voucher_id = $1 AND NOT successful
GROUP BY failure_reason
ORDER BY attempts DESC, failure_reason COLLATE "C"
LIMIT $2;

-- name: explain_refused_facts_of_voucher
-- What was told of a voucher's claims and redemptions with another content that does not stand, and how much of it there is.
-- $1 voucher, $2 limit
SELECT f.topic AS event, f.content ->> CASE f.topic WHEN 'claim' THEN 'customer_id' ELSE 'attempt_id' END AS of_what, f.content,
       count(*) OVER () AS total, s.cluster_id, s.topic, s."partition", f.source_offset
FROM refused_voucher_facts AS f LEFT JOIN stream_sources AS s ON s.id = f.source_id
WHERE f.voucher_id = $1
ORDER BY f.topic, of_what, f.content ->> 'attempted_at', f.content ->> 'claimed_at', f.digest
LIMIT $2;

-- name: explain_closings_of_voucher
-- A voucher's days whose scans are kept as counts alone, newest first, and how many there are.
-- $1 voucher, $2 limit
SELECT day, (SELECT sum(scans) FROM jsonb_to_recordset(sums -> 'hours') AS h(scans bigint))::bigint AS scans,
       sums ->> 'reason' AS reason, closed_before, closed_at, count(*) OVER () AS total
FROM ledger_closings
WHERE ledger = 'voucher_scans' AND key = $1
ORDER BY day DESC
LIMIT $2;

-- name: explain_scan_windows
-- Where a voucher's latest scans of a span that ends today are: by its hours, the latest first, up to the one that completes
-- what is wanted. An hour with very many is taken in parts.
-- $1 voucher, $2 days, $3 how many scans are wanted
SELECT (hour + make_interval(mins => first))::text AS since, (hour + make_interval(mins => last))::text AS until
FROM (
  SELECT hour, scans > 100000 AS is_busy, sum(scans) OVER (ORDER BY hour DESC) - scans AS later_scans
  FROM voucher_hourly
  WHERE voucher_id = $1 AND scans > 0
    AND hour >= (counterfoil_today() - $2::integer + 1)::timestamp AT TIME ZONE 'UTC'
    AND hour < (counterfoil_today() + 1)::timestamp AT TIME ZONE 'UTC'
) AS h
JOIN (VALUES (false, 0, 60), (true, 58, 60), (true, 45, 58), (true, 30, 45), (true, 15, 30), (true, 0, 15))
  AS parts(is_busy, first, last) USING (is_busy)
WHERE later_scans < $3
ORDER BY hour DESC, last DESC;

-- name: explain_scans_of_window
-- A voucher's scans in one window, newest first.
-- $1 voucher, $2 since, $3 until, as texts, $4 limit
SELECT v.scan_id, v.occurred_at, v.user_id, v.scan_type, v.scan_source, scan_place(v.location) AS place, v.device_info, v.location,
       v.ip_address, v.user_agent, v.metadata, s.cluster_id, s.topic, s."partition", v.source_offset
FROM voucher_scans AS v LEFT JOIN stream_sources AS s ON s.id = v.source_id
WHERE v.voucher_id = $1 AND v.occurred_at >= $2::text::timestamptz AND v.occurred_at < $3::text::timestamptz
ORDER BY v.occurred_at DESC, v.scan_id
LIMIT $4;
