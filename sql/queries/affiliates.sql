-- name: list_affiliates
-- Affiliates by handle, each with its coupons, and the metrics of its last 30 days as a JSON array: an object for each
-- currency, the clicks in that of none.
-- $1 handle or null for all, $2 status or null for all, $3 limit, $4 offset
SELECT a.id, a.handle, a.name, a.status, a.pixel_id, a.created_at, o.codes, m.metrics
FROM (
  SELECT * FROM affiliates
  WHERE ($1::text IS NULL OR handle = $1) AND ($2::text IS NULL OR status = $2)
  ORDER BY handle
  LIMIT $3 OFFSET $4
) AS a
CROSS JOIN LATERAL (
  SELECT coalesce(array_agg(code ORDER BY code), '{}') AS codes
  FROM affiliate_coupon_owners
  WHERE pixel_id = a.pixel_id
) AS o
CROSS JOIN LATERAL (
  SELECT coalesce(jsonb_agg(jsonb_build_object(
    'currency', v.currency, 'digits', currency_digits(v.currency),
    'clicks', v.clicks_30d, 'unique_clicks', v.unique_clicks_30d, 'bot_clicks', v.bot_clicks_30d,
    'conversions', v.conversions_30d, 'revenue', v.revenue_30d::text, 'commission', v.commission_30d::text
  ) ORDER BY v.currency), '[]') AS metrics
  FROM affiliate_metrics_30d AS v
  WHERE v.pixel_id = a.pixel_id
) AS m
ORDER BY a.handle;

-- name: affiliate_days
-- The days of a span that ends today, each with what a pixel counted on it: a row for each currency, and one at least.
-- $1 pixel, $2 days
SELECT s.day::date AS day, coalesce(d.currency, '') AS currency, currency_digits(d.currency) AS digits,
  coalesce(d.clicks, 0) AS clicks, coalesce(d.unique_clicks, 0) AS unique_clicks,
  coalesce(d.bot_clicks, 0) AS bot_clicks, coalesce(d.conversions, 0) AS conversions,
  coalesce(d.revenue, 0) AS revenue, coalesce(d.commission, 0) AS commission
FROM generate_series(counterfoil_today() - ($2::integer - 1), counterfoil_today(), interval '1 day') AS s(day)
LEFT JOIN affiliate_daily AS d ON d.pixel_id = $1 AND d.day = s.day::date
ORDER BY s.day, d.currency;

-- name: affiliate_status_history
-- What an affiliate's status has been since when, and by whom it was set, the earliest first.
-- $1 pixel
SELECT status, valid_from, actor FROM affiliate_status_changes WHERE pixel_id = $1 ORDER BY valid_from, id;

-- name: digits_of_currency
-- How many decimals amounts of a currency have.
-- $1 currency
SELECT currency_digits($1);

-- name: create_affiliate
-- Make an affiliate; no row comes back where its handle or its pixel is another's.
-- $1 handle, $2 name, $3 status, $4 pixel
INSERT INTO affiliates (handle, name, status, pixel_id) VALUES ($1, $2, $3, $4)
ON CONFLICT DO NOTHING
RETURNING id;

-- name: affiliate_handle_is_taken
-- Whether there is an affiliate of this handle.
-- $1 handle
SELECT EXISTS (SELECT FROM affiliates WHERE handle = $1);

-- name: lock_affiliate
-- Hold an affiliate until the transaction ends, and answer what may be changed of it, and its pixel.
-- $1 handle
SELECT name, status, pixel_id FROM affiliates WHERE handle = $1 FOR UPDATE;

-- name: rename_affiliate
-- Give an affiliate another name.
-- $1 handle, $2 name
UPDATE affiliates SET name = $2 WHERE handle = $1;

-- name: set_affiliate_status
-- Let an affiliate have another status from now on; a trigger shows it in its row.
-- $1 pixel, $2 status, $3 actor
INSERT INTO affiliate_status_changes (pixel_id, status, actor) VALUES ($1, $2, $3);

-- name: release_coupons
-- Take from a pixel the coupons that are not among these.
-- $1 pixel, $2 codes
DELETE FROM affiliate_coupon_owners WHERE pixel_id = $1 AND code <> ALL ($2::text[]);

-- name: assign_coupons
-- Give a pixel those of these coupons that are nobody's.
-- $1 pixel, $2 codes, sorted
INSERT INTO affiliate_coupon_owners (code, pixel_id)
SELECT code, $1 FROM unnest($2::text[]) AS s(code)
ON CONFLICT (code) DO NOTHING;

-- name: coupons_of_others
-- Those of these coupons that are another pixel's, by code.
-- $1 pixel, $2 codes
SELECT code FROM affiliate_coupon_owners WHERE code = ANY ($2::text[]) AND pixel_id <> $1 ORDER BY code;

-- name: order_is_converted
-- Whether an order is attributed by a conversion of this time or an earlier one.
-- $1 order id, $2 time
SELECT EXISTS (
  SELECT FROM aff_attributions WHERE order_id = $1 AND origin = 'conversion' AND occurred_at <= $2
);
