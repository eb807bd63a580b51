-- name: drift_of_aff_attributions
-- Attributions that are not what their order's facts say, a row missing or too many included.
WITH pages AS (
  SELECT array_agg(order_id) AS ids FROM (
    SELECT order_id, row_number() OVER (ORDER BY order_id) / 10000 AS page FROM (
      SELECT order_id FROM conversions UNION SELECT order_id FROM order_totals UNION SELECT order_id FROM aff_attributions
    ) AS known
  ) AS numbered GROUP BY page
), compared AS (
  SELECT coalesce(t.order_id, a.order_id) AS key, v.*
  FROM (SELECT t.* FROM pages, LATERAL order_targets(pages.ids) AS t) AS t
  FULL JOIN aff_attributions AS a ON a.order_id = t.order_id
  CROSS JOIN LATERAL (VALUES
    ('beneficiary', a.beneficiary, t.beneficiary),
    ('origin', a.origin, t.origin),
    ('code', a.code, t.code),
    ('link_id', a.link_id, t.link_id),
    ('rate_source', a.rate_source, t.rate_source),
    ('pixel_id', a.pixel_id, t.pixel_id),
    ('partner_id', a.partner_id, t.partner_id),
    ('program_id', a.program_id, t.program_id),
    ('currency', a.currency, t.currency),
    ('revenue', a.revenue::text, t.revenue::numeric(20,6)::text),
    ('refunded', a.refunded::text, t.refunded::numeric(20,6)::text),
    ('commission', a.commission::text, t.earnings::numeric(38,6)::text),
    ('reversed', (a.status = 'reversed')::text, (t.canceled_at IS NOT NULL)::text),
    ('occurred_at', a.occurred_at::text, t.occurred_at::text)
  ) AS v(counter, stored, counted)
)
SELECT key, counter, stored, coalesce(counted, 'nothing') AS counted FROM compared
WHERE stored IS DISTINCT FROM counted
  AND (counter <> 'reversed' OR stored IS NOT NULL)
ORDER BY 1, 2;

-- name: count_aff_attributions
-- How many attributions there are to verify.
SELECT count(*) FROM aff_attributions;

-- name: drift_of_commissions
-- Orders for which what is posted to somebody in a currency does not come to what is owed.
WITH pages AS (
  SELECT array_agg(order_id) AS ids FROM (
    SELECT order_id, row_number() OVER (ORDER BY order_id) / 10000 AS page FROM (
      SELECT order_id FROM conversions UNION SELECT order_id FROM order_totals UNION SELECT order_id FROM commissions
    ) AS known
  ) AS numbered GROUP BY page
), differing AS (
  SELECT d.order_id, d.beneficiary, d.currency, sum(d.amount) AS amount, sum(d.earnings) AS earnings
  FROM pages, LATERAL commission_differences(
    (SELECT coalesce(array_agg(t), '{}') FROM order_targets(pages.ids) AS t), pages.ids) AS d
  GROUP BY 1, 2, 3
), posted AS (
  SELECT d.*, coalesce(sum(c.amount), 0) AS posted_amount, coalesce(sum(c.earnings), 0) AS posted_earnings
  FROM differing AS d
  LEFT JOIN commissions AS c USING (order_id, beneficiary, currency)
  GROUP BY d.order_id, d.beneficiary, d.currency, d.amount, d.earnings
)
SELECT order_id AS key, format('%s of %s in %s', what, beneficiary, currency) AS counter, stored::text,
       (stored + difference)::text AS counted
FROM posted, LATERAL (VALUES
  ('amount', posted_amount, amount),
  ('earnings', posted_earnings, earnings)
) AS v(what, stored, difference)
WHERE difference <> 0 OR (amount = 0 AND earnings = 0)  -- the right sum, under another partner, program or link
ORDER BY 1, 2;

-- name: count_commissions
-- How many rows of commissions there are to verify.
SELECT count(*) FROM commissions;

-- name: lock_settled_order
-- Hold one order, so that a fresh statement can settle it.
-- $1 order
SELECT hold_orders(ARRAY[$1::text]);

-- name: settle_order
-- Set one held order's attribution to what its facts say, and post what is missing.
-- $1 order
SELECT settle_orders(ARRAY[$1::text]);

-- name: drift_of_daily_conversions
-- Rows of the daily roll-up whose conversions are not what the attributions say, a row missing or too many included.
WITH counted AS (
  SELECT pixel_id, (occurred_at AT TIME ZONE 'UTC')::date AS day, currency, count(*) AS conversions,
         sum(revenue) AS revenue, sum(commission) AS commission
  FROM aff_attributions WHERE status <> 'reversed' AND pixel_id IS NOT NULL GROUP BY 1, 2, 3
), compared AS (
  SELECT coalesce(d.pixel_id, k.pixel_id) AS pixel_id, coalesce(d.day, k.day) AS day,
         coalesce(d.currency, k.currency) AS currency, v.*
  FROM (SELECT * FROM affiliate_daily WHERE currency <> '') AS d
  FULL JOIN counted AS k ON k.pixel_id = d.pixel_id AND k.day = d.day AND k.currency = d.currency
  CROSS JOIN LATERAL (VALUES
    ('conversions', d.conversions::text, coalesce(k.conversions, 0)::text),
    ('revenue', d.revenue::text, coalesce(k.revenue, 0)::numeric(38,6)::text),
    ('commission', d.commission::text, coalesce(k.commission, 0)::numeric(38,6)::text)
  ) AS v(counter, stored, counted)
)
SELECT format('%s %s %s', currency, day, pixel_id) AS key, counter, stored, counted FROM compared
WHERE stored IS DISTINCT FROM counted
ORDER BY 1, 2;

-- name: lock_daily_conversions
-- Hold one row of the daily roll-up, made when it is missing, so that a fresh statement can recount it.
-- $1 currency, day and pixel, as its drift is named
SELECT hold_daily(ARRAY[substr($1::text, 16)], ARRAY[substr($1, 5, 10)::date], ARRAY[left($1, 3)]);

-- name: recount_daily_conversions
-- Set one held row of the daily roll-up to what the attributions say.
-- $1 currency, day and pixel, as its drift is named
UPDATE affiliate_daily AS d
SET conversions = k.conversions, revenue = k.revenue, commission = k.commission, updated_at = now()
FROM (
  SELECT count(*) AS conversions, coalesce(sum(revenue), 0) AS revenue, coalesce(sum(commission), 0) AS commission
  FROM aff_attributions
  WHERE status <> 'reversed' AND pixel_id = substr($1::text, 16) AND currency = left($1, 3)
    AND occurred_at >= substr($1, 5, 10)::timestamp AT TIME ZONE 'UTC'
    AND occurred_at < substr($1, 5, 10)::timestamp AT TIME ZONE 'UTC' + interval '1 day'
) AS k
WHERE d.pixel_id = substr($1, 16) AND d.day = substr($1, 5, 10)::date AND d.currency = left($1, 3);

-- name: count_daily_conversions
-- How many rows of the daily roll-up count conversions.
SELECT count(*) FROM affiliate_daily WHERE currency <> '';

-- name: approve_commissions
-- Let pending commissions become payable whose holding period is over, of 5,000 orders at most; answers how many.
-- $1 days
SELECT approve_commissions($1);

-- name: drift_of_payouts
-- Payouts whose amount is not the sum of the commissions that they paid; a person must say which of the two is right.
SELECT p.id::text AS key, 'amount' AS counter, p.amount::text AS stored, coalesce(sum(c.earnings), 0)::numeric(38,6)::text AS counted
FROM payouts AS p LEFT JOIN commissions AS c ON c.payout_id = p.id AND c.partner_id = p.partner_id AND c.currency = p.currency
GROUP BY p.id HAVING p.amount <> coalesce(sum(c.earnings), 0)
ORDER BY p.id;

-- name: leave_payout
-- A payout is not repaired: it says what was paid.
-- $1 payout
SELECT FROM payouts WHERE id = $1::text::bigint;

-- name: count_payouts
-- How many payouts there are to verify.
SELECT count(*) FROM payouts;
