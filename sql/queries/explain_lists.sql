-- name: list_coupons_to_explain
-- The coupons that are used most, how many there are, and what they come to.
-- $1 limit
SELECT code, times_used, count(*) OVER () AS total, sum(times_used) OVER ()::bigint AS sum
FROM affiliate_coupons
ORDER BY times_used DESC, code
LIMIT $1;

-- name: list_promos_to_explain
-- The promo codes that are used most, how many there are, and what they come to.
-- $1 limit
SELECT code, times_used, total_bonus_issued AS bonus, count(*) OVER () AS total, sum(times_used) OVER ()::bigint AS sum
FROM promo_codes
ORDER BY times_used DESC, code
LIMIT $1;

-- name: list_affiliates_to_explain
-- The pixels that were clicked most today, how many there are, and what they come to.
-- $1 limit
SELECT coalesce(a.handle, d.pixel_id) AS affiliate, d.clicks, d.unique_clicks AS "unique", d.bot_clicks AS bots,
       count(*) OVER () AS total, sum(d.clicks) OVER ()::bigint AS sum
FROM affiliate_daily AS d LEFT JOIN affiliates AS a ON a.pixel_id = d.pixel_id
WHERE d.day = (now() AT TIME ZONE 'UTC')::date AND d.currency = ''
ORDER BY d.clicks DESC, d.pixel_id
LIMIT $1;

-- name: list_vouchers_to_explain
-- The vouchers that were scanned most today, how many there are, and what they come to.
-- $1 limit
WITH today AS (SELECT (now() AT TIME ZONE 'UTC')::date AS day)
SELECT voucher_id AS voucher, sum(scans)::bigint AS scans, sum(claims)::bigint AS claims, sum(redemptions)::bigint AS redemptions,
       count(*) OVER () AS total, sum(sum(scans)) OVER ()::bigint AS sum
FROM (
  SELECT voucher_id, scans, 0 AS claims, 0 AS redemptions FROM voucher_hourly, today
  WHERE hour >= today.day::timestamp AT TIME ZONE 'UTC' AND hour < (today.day + 1)::timestamp AT TIME ZONE 'UTC'
  UNION ALL
  SELECT v.voucher_id, 0, v.claims, v.redemptions FROM voucher_daily AS v, today WHERE v.day = today.day
) AS counted
GROUP BY voucher_id
ORDER BY scans DESC, claims DESC, voucher_id
LIMIT $1;

-- name: list_partners_to_explain
-- What is owed and paid to partners, the most first, how many sums there are; those of nobody yet among them.
-- $1 limit
SELECT partner_id AS partner, status, sum(earnings) AS earnings, currency, currency_digits(currency) AS digits,
       count(*) AS commissions, count(*) OVER () AS total
FROM commissions
GROUP BY partner_id, status, currency
ORDER BY sum(earnings) DESC, partner_id, status, currency
LIMIT $1;

-- name: list_commissions_to_explain
-- The commissions that were posted last.
-- $1 limit
SELECT id AS commission, order_id AS "order", partner_id AS partner, kind || ': ' || cause AS what, earnings, currency,
       currency_digits(currency) AS digits, status, posted_at AS posted
FROM commissions
ORDER BY id DESC
LIMIT $1;

-- name: list_skus_to_explain
-- The products that are low, the emptiest first, and how many there are.
-- $1 limit
SELECT sku, name, stock, threshold, count(*) OVER () AS total
FROM inventory_products
WHERE stock < threshold
ORDER BY stock, sku
LIMIT $1;
