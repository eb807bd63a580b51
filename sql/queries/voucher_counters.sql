-- name: hold_voucher
-- Hold one voucher, made when it is missing, so that fresh statements can recount it.
-- $1 id
SELECT hold_vouchers(ARRAY[$1::text]);

-- name: recount_voucher
-- Set all that is counted of a held voucher to what its ledgers and closings say.
-- $1 id
SELECT recount_vouchers(ARRAY[$1::text]);

-- name: drift_of_vouchers
-- Vouchers whose stored counts are not what their ledgers and closings say.
SELECT coalesce(v.id, c.id) AS key, counter, stored::text, counted::text
FROM vouchers AS v
FULL JOIN voucher_counts AS c ON c.id = v.id,
LATERAL (VALUES
  ('claim_count', v.claim_count, coalesce(c.claim_count, 0)),
  ('impressions', v.impressions, coalesce(c.impressions, 0)),
  ('redemption_count', v.redemption_count, coalesce(c.redemption_count, 0)),
  ('scan_count', v.scan_count, coalesce(c.scan_count, 0))
) AS compared(counter, stored, counted)
WHERE stored IS DISTINCT FROM counted
ORDER BY 1, 2;

-- name: drift_of_voucher_hourly
-- Hours whose stored scans are not what the ledger and its closings say; a key is the voucher.
SELECT coalesce(h.voucher_id, c.voucher_id) AS key,
       counter || to_char(coalesce(h.hour, c.hour) AT TIME ZONE 'UTC', ' "of" YYYY-MM-DD HH24"h"') AS counter,
       stored::text, counted::text
FROM voucher_hourly AS h
FULL JOIN voucher_hourly_counted AS c ON c.voucher_id = h.voucher_id AND c.hour = h.hour,
LATERAL (VALUES
  ('anonymous_scans', h.anonymous_scans, coalesce(c.anonymous_scans, 0)),
  ('business_scans', h.business_scans, coalesce(c.business_scans, 0)),
  ('camera_scans', h.camera_scans, coalesce(c.camera_scans, 0)),
  ('customer_scans', h.customer_scans, coalesce(c.customer_scans, 0)),
  ('gallery_scans', h.gallery_scans, coalesce(c.gallery_scans, 0)),
  ('link_scans', h.link_scans, coalesce(c.link_scans, 0)),
  ('scans', h.scans, coalesce(c.scans, 0)),
  ('share_scans', h.share_scans, coalesce(c.share_scans, 0))
) AS compared(counter, stored, counted)
WHERE stored IS DISTINCT FROM counted
ORDER BY 1, 2;

-- name: drift_of_voucher_places
-- Places whose stored scans are not what the ledger and its closings say; a key is the voucher.
SELECT coalesce(p.voucher_id, c.voucher_id) AS key,
       'scans of ' || coalesce(p.day, c.day) || ' in ' || coalesce(p.place, c.place) AS counter,
       p.scans::text AS stored, coalesce(c.scans, 0)::text AS counted
FROM voucher_places AS p
FULL JOIN voucher_places_counted AS c ON c.voucher_id = p.voucher_id AND c.day = p.day AND c.place = p.place
WHERE p.scans IS DISTINCT FROM coalesce(c.scans, 0)
ORDER BY 1, 2;

-- name: drift_of_voucher_place_months
-- Places whose scans of a month are not what the ledger and its closings say; a key is the voucher.
SELECT coalesce(p.voucher_id, c.voucher_id) AS key,
       'scans of the month ' || coalesce(p.month, c.month) || ' in ' || coalesce(p.place, c.place) AS counter,
       p.scans::text AS stored, coalesce(c.scans, 0)::text AS counted
FROM voucher_place_months AS p
FULL JOIN voucher_place_months_counted AS c ON c.voucher_id = p.voucher_id AND c.month = p.month AND c.place = p.place
WHERE p.scans IS DISTINCT FROM coalesce(c.scans, 0)
ORDER BY 1, 2;

-- name: drift_of_voucher_scanner_days
-- Days of users whose first scan is not what the ledger says; a key is the voucher.
SELECT coalesce(d.voucher_id, c.voucher_id) AS key,
       'first_at of ' || coalesce(d.day, c.day) || ' of user ' || coalesce(d.user_id, c.user_id) AS counter,
       (d.first_at AT TIME ZONE 'UTC')::text AS stored, coalesce((c.first_at AT TIME ZONE 'UTC')::text, 'never') AS counted
FROM voucher_scanner_days AS d
FULL JOIN voucher_scanner_days_counted AS c ON c.voucher_id = d.voucher_id AND c.user_id = d.user_id AND c.day = d.day
WHERE d.first_at IS DISTINCT FROM c.first_at
ORDER BY 1, 2;

-- name: drift_of_voucher_returns
-- Numbers of users that are not what their days say; a key is the voucher.
SELECT coalesce(r.voucher_id, c.voucher_id) AS key,
       'users of ' || coalesce(r.day, c.day) || ' after ' || coalesce(r.previous_day, c.previous_day) AS counter,
       r.users::text AS stored, coalesce(c.users, 0)::text AS counted
FROM voucher_returns AS r
FULL JOIN voucher_returns_counted AS c
  ON c.voucher_id = r.voucher_id AND c.day = r.day AND c.previous_day = r.previous_day
WHERE r.users IS DISTINCT FROM coalesce(c.users, 0)
ORDER BY 1, 2;

-- name: drift_of_voucher_daily
-- Days whose stored counts are not what the ledgers say; a key is the voucher.
SELECT coalesce(d.voucher_id, c.voucher_id) AS key, counter || ' of ' || coalesce(d.day, c.day) AS counter,
       stored::text, counted::text
FROM voucher_daily AS d
FULL JOIN voucher_daily_counted AS c ON c.voucher_id = d.voucher_id AND c.day = d.day,
LATERAL (VALUES
  ('claim_to_redemption_s', d.claim_to_redemption_s, coalesce(c.claim_to_redemption_s, 0)),
  ('claims', d.claims, coalesce(c.claims, 0)),
  ('failed_redemptions', d.failed_redemptions, coalesce(c.failed_redemptions, 0)),
  ('impressions', d.impressions, coalesce(c.impressions, 0)),
  ('redemptions', d.redemptions, coalesce(c.redemptions, 0)),
  ('scan_to_claim_s', d.scan_to_claim_s, coalesce(c.scan_to_claim_s, 0)),
  ('timed_claims', d.timed_claims, coalesce(c.timed_claims, 0)),
  ('timed_redemptions', d.timed_redemptions, coalesce(c.timed_redemptions, 0))
) AS compared(counter, stored, counted)
WHERE stored IS DISTINCT FROM counted
ORDER BY 1, 2;

-- name: drift_of_customer_vouchers
-- Wallets whose times of redemption and of the first scan are not what the ledgers say; a key is the voucher.
SELECT coalesce(v.voucher_id, c.voucher_id) AS key, counter || ' of customer ' || coalesce(v.customer_id, c.customer_id) AS counter,
       (stored AT TIME ZONE 'UTC')::text AS stored, coalesce((counted AT TIME ZONE 'UTC')::text, 'never') AS counted
FROM customer_vouchers AS v
FULL JOIN customer_vouchers_counted AS c ON c.customer_id = v.customer_id AND c.voucher_id = v.voucher_id,
LATERAL (VALUES
  ('first_scanned_at', v.first_scanned_at, c.first_scanned_at),
  ('redeemed_at', v.redeemed_at, c.redeemed_at)
) AS compared(counter, stored, counted)
WHERE stored IS DISTINCT FROM counted
ORDER BY 1, 2;

-- name: count_vouchers
-- How many vouchers there are to verify.
SELECT count(*) FROM vouchers;

-- name: count_voucher_hourly
-- How many hours of vouchers there are to verify.
SELECT count(*) FROM voucher_hourly;

-- name: count_voucher_places
-- How many days of places there are to verify.
SELECT count(*) FROM voucher_places;

-- name: count_voucher_place_months
-- How many months of places there are to verify.
SELECT count(*) FROM voucher_place_months;

-- name: count_voucher_scanner_days
-- How many days of users there are to verify.
SELECT count(*) FROM voucher_scanner_days;

-- name: count_voucher_returns
-- How many pairs of days there are to verify.
SELECT count(*) FROM voucher_returns;

-- name: count_voucher_daily
-- How many days of vouchers there are to verify.
SELECT count(*) FROM voucher_daily;

-- name: count_customer_vouchers
-- How many rows of wallets there are to verify.
SELECT count(*) FROM customer_vouchers;
