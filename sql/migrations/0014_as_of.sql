-- Numbers as of an event time: what the facts with a time up to then come to, whenever and in whatever order they came.
-- Rates, statuses and the owners of coupons are rules, no facts: an event is judged by those of its own time, now as then.

-- The partner of a link: its user's is known from the time on at which the user is. order_targets_at has it in line: a call
-- for each order took as long as all the rest.
CREATE FUNCTION partner_of_link_at(link links, as_of timestamptz) RETURNS text LANGUAGE sql STABLE
SET search_path FROM CURRENT AS $$
  SELECT CASE WHEN (link).named_partner_id IS NULL AND EXISTS (
    SELECT FROM shop_users AS u
    WHERE u.id = (link).user_id AND u.default_partner_id = (link).partner_id AND u.occurred_at > as_of
      AND (u.source_id IS NOT NULL OR u.name IS NOT NULL OR u.email IS NOT NULL)
  ) THEN NULL ELSE (link).partner_id END
$$;

-- As order_targets, of the facts up to a time. A link or a user that was told of later is not known yet; one that a backfill
-- has made of nothing but an id has no time of its own.
CREATE FUNCTION order_targets_at(ids text[], as_of timestamptz) RETURNS SETOF order_target LANGUAGE sql STABLE
SET search_path FROM CURRENT AS $$
  WITH wanted AS (
    SELECT DISTINCT id FROM unnest(ids) AS t(id)
  ), claimed AS (
    SELECT DISTINCT ON (c.order_id) c.*
    FROM wanted AS w JOIN conversions AS c ON c.order_id = w.id
    WHERE c.occurred_at <= as_of
    ORDER BY c.order_id, c.occurred_at, c.pixel_id, c.link_id
  ), vouched AS (
    SELECT DISTINCT ON (t.order_id) t.*, o.pixel_id, o.code
    FROM wanted AS w
    JOIN order_totals AS t ON t.order_id = w.id AND t.occurred_at <= as_of
    JOIN affiliate_coupon_usages AS u ON u.order_id = t.order_id AND u.occurred_at <= as_of
    JOIN affiliate_coupon_owners AS o ON o.code = u.code
    WHERE NOT EXISTS (SELECT FROM conversions AS c WHERE c.order_id = t.order_id AND c.occurred_at <= as_of)
    ORDER BY t.order_id, o.pixel_id, o.code
  ), attributed AS (
    SELECT order_id, beneficiary, 'conversion' AS origin, NULL AS code, pixel_id, link_id, revenue, commission, currency,
           occurred_at
    FROM claimed
    UNION ALL
    SELECT order_id, 'pixel:' || pixel_id, 'coupon', code, pixel_id, NULL, total, NULL, currency, occurred_at
    FROM vouched
  ), linked AS (
    SELECT a.order_id, a.beneficiary, a.origin, a.code, a.revenue, a.commission, a.currency, a.occurred_at,
           coalesce(a.pixel_id, named.pixel_id) AS pixel_id,
           coalesce(named.id, first.id, CASE WHEN a.pixel_id IS NULL THEN a.link_id END) AS link_id,
           coalesce(named.program_id, first.program_id) AS program_id,
           coalesce(named.partner_id, first.partner_id) AS partner_id
    FROM attributed AS a
    LEFT JOIN LATERAL (
      SELECT l.id, l.pixel_id, l.program_id,
             CASE WHEN l.named_partner_id IS NULL AND EXISTS (
               SELECT FROM shop_users AS u
               WHERE u.id = l.user_id AND u.default_partner_id = l.partner_id AND u.occurred_at > as_of
                 AND (u.source_id IS NOT NULL OR u.name IS NOT NULL OR u.email IS NOT NULL)
             ) THEN NULL ELSE l.partner_id END AS partner_id
      FROM links AS l
      WHERE l.id = a.link_id AND l.occurred_at <= as_of
        AND (a.pixel_id IS NULL OR l.pixel_id IS NULL OR l.pixel_id = a.pixel_id)
    ) AS named ON true
    LEFT JOIN LATERAL (
      SELECT l.id, l.program_id,
             CASE WHEN l.named_partner_id IS NULL AND EXISTS (
               SELECT FROM shop_users AS u
               WHERE u.id = l.user_id AND u.default_partner_id = l.partner_id AND u.occurred_at > as_of
                 AND (u.source_id IS NOT NULL OR u.name IS NOT NULL OR u.email IS NOT NULL)
             ) THEN NULL ELSE l.partner_id END AS partner_id
      FROM links AS l
      WHERE named.id IS NULL AND l.pixel_id = a.pixel_id AND l.occurred_at <= as_of ORDER BY l.occurred_at, l.id LIMIT 1
    ) AS first ON true
  ), judged AS (
    SELECT l.*, c.canceled_at, r.refunded_at, least(coalesce(r.refunded, 0), l.revenue) AS refunded,
           coalesce(status.paused, false) AS paused,
           CASE WHEN l.commission IS NOT NULL THEN 'conversion'
                WHEN program.percent IS NOT NULL THEN 'program'
                ELSE 'default' END AS rate_source,
           coalesce(program.percent, fallback.percent, 0) AS percent,
           coalesce(k.digits, 2) AS digits
    FROM linked AS l
    LEFT JOIN currencies AS k ON k.code = l.currency
    LEFT JOIN order_cancellations AS c ON c.order_id = l.order_id AND c.canceled_at <= as_of
    LEFT JOIN LATERAL (
      SELECT sum(f.amount) AS refunded, max(f.occurred_at) AS refunded_at FROM order_refunds AS f
      WHERE f.order_id = l.order_id AND f.occurred_at <= as_of AND (f.currency IS NULL OR f.currency = l.currency)
    ) AS r ON true
    LEFT JOIN LATERAL (
      SELECT s.status = 'paused' AS paused FROM affiliate_status_changes AS s
      WHERE s.pixel_id = l.pixel_id
      ORDER BY s.valid_from > l.occurred_at, CASE WHEN s.valid_from > l.occurred_at THEN s.valid_from END,
               s.valid_from DESC, s.id DESC LIMIT 1
    ) AS status ON true
    LEFT JOIN LATERAL (
      SELECT p.percent FROM program_rates AS p
      WHERE p.program_id = l.program_id
      ORDER BY p.valid_from > l.occurred_at, CASE WHEN p.valid_from > l.occurred_at THEN p.valid_from END,
               p.valid_from DESC, p.id DESC LIMIT 1
    ) AS program ON true
    LEFT JOIN LATERAL (
      SELECT d.percent FROM default_rates AS d
      ORDER BY d.valid_from > l.occurred_at, CASE WHEN d.valid_from > l.occurred_at THEN d.valid_from END,
               d.valid_from DESC, d.id DESC LIMIT 1
    ) AS fallback ON true
  )
  SELECT order_id, beneficiary, origin, code, pixel_id, link_id, program_id, partner_id, revenue, refunded, refunded_at,
         canceled_at, currency,
         CASE WHEN paused THEN 0
              WHEN rate_source = 'conversion' THEN round(100 * commission / nullif(revenue, 0), 4)
              ELSE percent END,
         CASE WHEN paused THEN 'paused' ELSE rate_source END,
         CASE WHEN paused OR canceled_at IS NOT NULL THEN 0 ELSE revenue - refunded END,
         CASE WHEN paused OR canceled_at IS NOT NULL THEN 0
              WHEN rate_source <> 'conversion' THEN half_even(percent * (revenue - refunded), 100, digits)
              WHEN revenue > 0 THEN half_even(commission * (revenue - refunded), revenue, digits)
              ELSE half_even(commission, 1, digits) END,
         occurred_at
  FROM judged
$$;

-- What orders owe, a row for each beneficiary, link, program, partner and currency; what was imported is a fact of its own
-- while its order is attributed to nobody, and loses its refunds in proportion, as commission_differences has it.
CREATE FUNCTION commissions_at(ids text[], as_of timestamptz)
RETURNS TABLE (order_id text, beneficiary text, partner_id text, program_id text, link_id text, currency text, origin text,
               revenue numeric, refunded numeric, amount numeric, earnings numeric, rate_percent numeric, rate_source text,
               canceled_at timestamptz, occurred_at timestamptz)
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
  WITH targets AS MATERIALIZED (
    SELECT * FROM order_targets_at(ids, as_of)
  ), imported AS (
    SELECT c.order_id, c.beneficiary, c.partner_id, c.program_id, c.link_id, c.currency, sum(c.amount) AS amount,
           sum(c.earnings) AS earnings, min(c.rate_percent) AS rate_percent, min(c.rate_source) AS rate_source,
           min(c.occurred_at) AS occurred_at
    FROM commissions AS c
    WHERE c.order_id = ANY (ids) AND c.origin = 'manual' AND c.occurred_at <= as_of
      AND NOT EXISTS (SELECT FROM targets AS t WHERE t.order_id = c.order_id)
      -- a row that somebody has canceled is none; one that what came later has brought to nothing is one until then
      AND (c.status <> 'canceled' OR NOT EXISTS (
        SELECT FROM commissions AS k
        WHERE k.order_id = c.order_id AND k.beneficiary = c.beneficiary AND k.currency = c.currency
          AND (k.partner_id, k.program_id, k.link_id) IS NOT DISTINCT FROM (c.partner_id, c.program_id, c.link_id)
        HAVING sum(k.amount) <> 0 OR sum(k.earnings) <> 0))
    GROUP BY 1, 2, 3, 4, 5, 6
  ), reduced AS (
    SELECT i.*, c.canceled_at, least(i.total, coalesce(r.refunded, 0)) AS refunded,
           i.total - least(i.total, coalesce(r.refunded, 0)) AS remainder,
           i.total > 0 AND i.amount > 0 AND i.earnings >= 0 AND r.refunded > 0 AS is_reduced
    FROM (SELECT *, sum(amount) OVER (PARTITION BY order_id, currency) AS total FROM imported) AS i
    LEFT JOIN order_cancellations AS c ON c.order_id = i.order_id AND c.canceled_at <= as_of
    LEFT JOIN LATERAL (
      SELECT sum(f.amount) AS refunded FROM order_refunds AS f
      WHERE f.order_id = i.order_id AND f.occurred_at <= as_of AND (f.currency IS NULL OR f.currency = i.currency)
    ) AS r ON true
  )
  SELECT order_id, beneficiary, partner_id, program_id, link_id, currency, origin, revenue, refunded, amount, earnings,
         rate_percent, rate_source, canceled_at, occurred_at
  FROM targets
  UNION ALL
  SELECT order_id, beneficiary, partner_id, program_id, link_id, currency, 'manual', amount,
         CASE WHEN is_reduced THEN amount - half_even(amount * remainder, total, 6) ELSE 0 END,
         CASE WHEN canceled_at IS NOT NULL THEN 0
              WHEN is_reduced THEN half_even(amount * remainder, total, 6)
              ELSE amount END,
         CASE WHEN canceled_at IS NOT NULL THEN 0
              WHEN is_reduced THEN half_even(earnings * remainder, total, currency_digits(currency))
              ELSE earnings END,
         rate_percent, rate_source, canceled_at, occurred_at
  FROM reduced
$$;

COMMENT ON FUNCTION commissions_at IS 'what orders owe by their facts up to a time; live, it is what is posted for them';

-- Orders that pixels may have earned something with: whoever asks looks at their targets then. Totals are kept only where
-- attribution by coupon is on, so each looks up its own codes: the usages have no index by code.
CREATE FUNCTION orders_of_pixels_at(pixels text[], since timestamptz, as_of timestamptz)
RETURNS TABLE (order_id text, occurred_at timestamptz) LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
  SELECT c.order_id, c.occurred_at FROM conversions AS c
  WHERE c.pixel_id = ANY (pixels) AND c.occurred_at >= since AND c.occurred_at <= as_of
  UNION ALL
  SELECT c.order_id, c.occurred_at
  FROM links AS l JOIN conversions AS c ON c.link_id = l.id
  WHERE l.pixel_id = ANY (pixels) AND c.pixel_id IS NULL AND c.occurred_at >= since AND c.occurred_at <= as_of
  UNION ALL
  SELECT t.order_id, t.occurred_at FROM order_totals AS t
  WHERE t.occurred_at >= since AND t.occurred_at <= as_of AND EXISTS (
    SELECT FROM affiliate_coupon_usages AS u JOIN affiliate_coupon_owners AS o ON o.code = u.code
    WHERE u.order_id = t.order_id AND o.pixel_id = ANY (pixels) OFFSET 0)
$$;

-- The same of a partner, each order with the time of its sale.
CREATE FUNCTION orders_of_partner_at(partner text, as_of timestamptz)
RETURNS TABLE (order_id text, occurred_at timestamptz) LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
  SELECT found.order_id, min(found.occurred_at)
  FROM (
    SELECT c.order_id, c.occurred_at
    FROM links AS l JOIN conversions AS c ON c.link_id = l.id
    WHERE l.partner_id = partner AND c.occurred_at <= as_of
    UNION ALL
    SELECT o.order_id, o.occurred_at
    FROM orders_of_pixels_at(
      (SELECT array_agg(DISTINCT l.pixel_id) FROM links AS l WHERE l.partner_id = partner), '-infinity', as_of) AS o
    UNION ALL
    SELECT c.order_id, c.occurred_at FROM commissions AS c
    WHERE c.partner_id = partner AND c.origin = 'manual' AND c.occurred_at <= as_of
  ) AS found
  GROUP BY found.order_id
$$;

-- The daily roll-up of some pixels: of a day that was over by then the clicks as they are counted, of the day itself those up
-- to then. Where its clicks are closed, all of them: their times are gone.
CREATE FUNCTION affiliate_days_at(pixels text[], first_day date, last_day date, as_of timestamptz)
RETURNS TABLE (pixel_id text, day date, currency text, clicks bigint, unique_clicks bigint, bot_clicks bigint,
               conversions bigint, revenue numeric, commission numeric)
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
  WITH moment AS (
    SELECT (as_of AT TIME ZONE 'UTC')::date AS day,
           coalesce(as_of < (SELECT closed_before FROM ledger_bounds WHERE ledger = 'aff_clicks'), false) AS is_closed
  )
  SELECT d.pixel_id, d.day, '', d.clicks, d.unique_clicks, d.bot_clicks, 0::bigint, 0::numeric, 0::numeric
  FROM affiliate_daily AS d, moment
  WHERE d.pixel_id = ANY (pixels) AND d.currency = '' AND d.day >= first_day AND d.day <= last_day
    AND (d.day < moment.day OR d.day = moment.day AND moment.is_closed)
  UNION ALL
  SELECT v.pixel_id, v.day, '', coalesce(sum(v.clicks) FILTER (WHERE NOT v.is_bot), 0)::bigint,
         count(*) FILTER (WHERE NOT v.is_bot), coalesce(sum(v.clicks) FILTER (WHERE v.is_bot), 0)::bigint, 0, 0, 0
  FROM (
    SELECT c.pixel_id, c.day, c.visitor, c.is_bot, count(*) AS clicks
    FROM aff_clicks AS c, moment
    WHERE c.day = moment.day AND c.day >= first_day AND c.day <= last_day
      AND c.occurred_at >= date_trunc('day', as_of AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' AND c.occurred_at <= as_of
      AND c.pixel_id = ANY (pixels)
    GROUP BY c.pixel_id, c.day, c.visitor, c.is_bot
  ) AS v
  GROUP BY v.pixel_id, v.day
  UNION ALL
  SELECT t.pixel_id, (t.occurred_at AT TIME ZONE 'UTC')::date, t.currency, 0, 0, 0, count(*), sum(t.revenue), sum(t.earnings)
  FROM order_targets_at((
    SELECT array_agg(o.order_id) FROM orders_of_pixels_at(pixels, first_day::timestamp AT TIME ZONE 'UTC', as_of) AS o), as_of) AS t
  WHERE t.pixel_id = ANY (pixels) AND t.canceled_at IS NULL
    AND (t.occurred_at AT TIME ZONE 'UTC')::date >= first_day AND (t.occurred_at AT TIME ZONE 'UTC')::date <= last_day
  GROUP BY 1, 2, 3
$$;

COMMENT ON FUNCTION affiliate_days_at IS 'affiliate_daily as it would stand with the events up to a time alone';

-- The last day of a span that is looked at as of a time: that of the time, but no day that has not come.
CREATE FUNCTION last_day_at(as_of timestamptz) RETURNS date LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
  SELECT least((as_of AT TIME ZONE 'UTC')::date, counterfoil_today())
$$;

-- An affiliate's status by then, or else the earliest known.
CREATE FUNCTION affiliate_status_at(pixel text, as_of timestamptz) RETURNS text LANGUAGE sql STABLE
SET search_path FROM CURRENT AS $$
  SELECT s.status FROM affiliate_status_changes AS s
  WHERE s.pixel_id = pixel
  ORDER BY s.valid_from > as_of, CASE WHEN s.valid_from > as_of THEN s.valid_from END, s.valid_from DESC, s.id DESC
  LIMIT 1
$$;


-- What was told of a promo code's uses once more, and does not stand, is looked up by code.
CREATE INDEX refused_facts_of_promo_codes ON refused_facts ((content ->> 'code')) WHERE topic = 'order.placed';
