-- Commissions: conversions, refunds, and what is owed for each order, posted row by row until it adds up.

CREATE TABLE currencies (
  code    text COLLATE "C" PRIMARY KEY,
  digits  smallint NOT NULL,
  CONSTRAINT digits_are_few CHECK (digits BETWEEN 0 AND 6)
);

COMMENT ON TABLE currencies IS 'ISO 4217: digits after the decimal point; a code that is not here has 2';

INSERT INTO currencies (code, digits)
SELECT unnest(string_to_array(regexp_replace('BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF', '\s+', ' ', 'g'), ' ')), 0
UNION ALL
SELECT unnest(string_to_array(regexp_replace('AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF CHE CHF CHW
  CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF
  IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK
  MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP
  SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED VES WST XAD XCD XCG
  YER ZAR ZMW ZWG', '\s+', ' ', 'g'), ' ')), 2
UNION ALL
SELECT unnest(string_to_array(regexp_replace('BHD IQD JOD KWD LYD OMR TND', '\s+', ' ', 'g'), ' ')), 3
UNION ALL
SELECT unnest(string_to_array(regexp_replace('CLF UYW', '\s+', ' ', 'g'), ' ')), 4;

CREATE TABLE conversions (
  order_id       text COLLATE "C" NOT NULL,
  beneficiary    text COLLATE "C" NOT NULL,
  pixel_id       text COLLATE "C",
  link_id        text COLLATE "C",
  revenue        numeric(20,6) NOT NULL,
  commission     numeric(20,6),
  currency       text COLLATE "C" NOT NULL,
  click_id       text COLLATE "C",
  occurred_at    timestamptz NOT NULL DEFAULT now(),
  source_id      integer,
  source_offset  bigint,
  PRIMARY KEY (order_id, beneficiary),
  CONSTRAINT order_id_not_blank CHECK (order_id <> ''),
  CONSTRAINT currency_is_a_code CHECK (currency ~ '^[A-Z]{3}$'),
  CONSTRAINT occurred_at_is_finite CHECK (isfinite(occurred_at)),
  CONSTRAINT somebody_is_named CHECK (pixel_id <> '' OR link_id <> ''),
  CONSTRAINT amounts_are_amounts CHECK (revenue >= 0 AND revenue <> 'NaN' AND commission >= 0 AND commission <> 'NaN')
);

COMMENT ON COLUMN conversions.beneficiary IS '''pixel:'' and the pixel, or else ''link:'' and the link; the pixel beats the link';

CREATE INDEX conversions_by_pixel ON conversions (pixel_id);
CREATE INDEX conversions_by_link ON conversions (link_id);

CREATE TABLE order_refunds (
  order_id       text COLLATE "C" NOT NULL,
  refund_id      text COLLATE "C" NOT NULL,
  amount         numeric(20,6) NOT NULL,
  currency       text COLLATE "C",
  occurred_at    timestamptz NOT NULL DEFAULT now(),
  source_id      integer,
  source_offset  bigint,
  PRIMARY KEY (order_id, refund_id),
  CONSTRAINT order_id_not_blank CHECK (order_id <> ''),
  CONSTRAINT refund_id_not_blank CHECK (refund_id <> ''),
  CONSTRAINT currency_is_a_code CHECK (currency ~ '^[A-Z]{3}$'),
  CONSTRAINT occurred_at_is_finite CHECK (isfinite(occurred_at)),
  CONSTRAINT amount_is_an_amount CHECK (amount >= 0 AND amount <> 'NaN')
);

COMMENT ON COLUMN order_refunds.currency IS 'null where the refund names none: then it is the order''s';

-- What was told of a fact once more, with another content that does not stand: the earlier does, then the smaller.
CREATE TABLE refused_facts (
  order_id       text COLLATE "C" NOT NULL,
  topic          text COLLATE "C" NOT NULL,
  content        jsonb NOT NULL,
  source_id      integer,
  source_offset  bigint,
  PRIMARY KEY (order_id, topic, content)
);

COMMENT ON COLUMN refused_facts.topic IS 'by its default name';

-- Orders with codes, where attribution by coupon is switched on.
CREATE TABLE order_totals (
  order_id       text COLLATE "C" PRIMARY KEY,
  total          numeric(20,6) NOT NULL,
  currency       text COLLATE "C" NOT NULL,
  occurred_at    timestamptz NOT NULL DEFAULT now(),
  source_id      integer,
  source_offset  bigint,
  CONSTRAINT order_id_not_blank CHECK (order_id <> ''),
  CONSTRAINT currency_is_a_code CHECK (currency ~ '^[A-Z]{3}$'),
  CONSTRAINT occurred_at_is_finite CHECK (isfinite(occurred_at)),
  CONSTRAINT total_is_an_amount CHECK (total >= 0 AND total <> 'NaN')
);

CREATE TABLE affiliate_coupon_owners (
  code         text COLLATE "C" PRIMARY KEY,
  pixel_id     text COLLATE "C" NOT NULL,
  assigned_at  timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT code_not_blank CHECK (code <> ''),
  CONSTRAINT pixel_id_not_blank CHECK (pixel_id <> '')
);

CREATE INDEX affiliate_coupon_owners_by_pixel ON affiliate_coupon_owners (pixel_id);

CREATE TABLE aff_attributions (
  order_id      text COLLATE "C" PRIMARY KEY,
  pixel_id      text COLLATE "C",
  link_id       text COLLATE "C",
  program_id    text COLLATE "C",
  partner_id    text COLLATE "C",
  beneficiary   text COLLATE "C" NOT NULL,
  origin        text NOT NULL,
  code          text COLLATE "C",
  revenue       numeric(20,6) NOT NULL,
  refunded      numeric(20,6) NOT NULL DEFAULT 0,
  commission    numeric(38,6) NOT NULL,
  currency      text COLLATE "C" NOT NULL,
  rate_percent  numeric,
  rate_source   text NOT NULL,
  status        text NOT NULL DEFAULT 'pending',
  occurred_at   timestamptz NOT NULL,
  updated_at    timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT order_id_not_blank CHECK (order_id <> ''),
  CONSTRAINT currency_is_a_code CHECK (currency ~ '^[A-Z]{3}$'),
  CONSTRAINT origin_is_known CHECK (origin IN ('conversion', 'coupon')),
  CONSTRAINT rate_source_is_known CHECK (rate_source IN ('conversion', 'program', 'default', 'paused')),
  CONSTRAINT status_is_known CHECK (status IN ('pending', 'approved', 'paid', 'reversed')),
  CONSTRAINT amounts_are_amounts CHECK (revenue >= 0 AND refunded >= 0 AND commission >= 0
                                        AND revenue <> 'NaN' AND refunded <> 'NaN' AND commission <> 'NaN')
) WITH (fillfactor = 70);

CREATE INDEX aff_attributions_by_pixel ON aff_attributions (pixel_id, occurred_at);
CREATE INDEX aff_attributions_by_program ON aff_attributions (program_id, occurred_at);

COMMENT ON TABLE aff_attributions IS 'who stands for each order, from its facts: the earliest conversion, or else an affiliate''s coupon';
COMMENT ON COLUMN aff_attributions.revenue IS 'as the conversion says, before refunds';
COMMENT ON COLUMN aff_attributions.commission IS 'what is owed now, after refunds and cancellation: the sum of the order''s commissions';

CREATE TABLE payouts (
  id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  partner_id       text COLLATE "C" NOT NULL,
  currency         text COLLATE "C" NOT NULL,
  amount           numeric(38,6) NOT NULL,
  reference        text NOT NULL DEFAULT '',
  actor            text NOT NULL DEFAULT current_user,
  created_at       timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT partner_id_not_blank CHECK (partner_id <> ''),
  CONSTRAINT amount_is_positive CHECK (amount > 0 AND amount <> 'NaN')
);

CREATE INDEX payouts_by_partner ON payouts (partner_id, id);

CREATE TABLE commissions (
  id            bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
  partner_id    text COLLATE "C",
  program_id    text COLLATE "C",
  link_id       text COLLATE "C",
  order_id      text COLLATE "C" NOT NULL,
  beneficiary   text COLLATE "C" NOT NULL,
  kind          text NOT NULL DEFAULT 'sale',
  cause         text NOT NULL,
  origin        text NOT NULL DEFAULT 'manual',
  amount        numeric(38,6) NOT NULL,
  earnings      numeric(38,6) NOT NULL,
  rate_percent  numeric,
  rate_source   text,
  currency      text COLLATE "C" NOT NULL,
  status        text NOT NULL DEFAULT 'pending',
  occurred_at   timestamptz NOT NULL DEFAULT now(),
  earned_at     timestamptz,
  payout_id     bigint REFERENCES payouts (id),
  posted_at     timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT commissions_identity UNIQUE (order_id, beneficiary, kind, cause),
  CONSTRAINT partner_id_not_blank CHECK (partner_id <> ''),
  CONSTRAINT program_id_not_blank CHECK (program_id <> ''),
  CONSTRAINT link_id_not_blank CHECK (link_id <> ''),
  CONSTRAINT order_id_not_blank CHECK (order_id <> ''),
  CONSTRAINT kind_is_known CHECK (kind IN ('sale', 'reversal')),
  CONSTRAINT currency_is_a_code CHECK (currency ~ '^[A-Z]{3}$'),
  CONSTRAINT origin_is_known CHECK (origin IN ('settled', 'manual')),
  CONSTRAINT status_is_known CHECK (status IN ('pending', 'approved', 'paid', 'canceled')),
  CONSTRAINT amounts_are_numbers CHECK (amount <> 'NaN' AND earnings <> 'NaN'),
  CONSTRAINT id_leaves_room CHECK (id < 4611686018427387904)
);

CREATE INDEX commissions_by_partner ON commissions (partner_id, currency, status);
CREATE INDEX commissions_pending ON commissions (earned_at) WHERE status = 'pending';
CREATE INDEX commissions_without_partner ON commissions (id) WHERE partner_id IS NULL;

COMMENT ON COLUMN commissions.amount IS 'the part of the order''s revenue that this row is about; negative in a reversal';
COMMENT ON COLUMN commissions.earnings IS 'what is owed for it, in the currency''s minor units';
COMMENT ON COLUMN commissions.earned_at IS 'the time of the sale, from which the holding period runs';
COMMENT ON COLUMN commissions.origin IS 'settled: posted from the order''s facts; manual: written by hand or imported';


-- Currencies round half to even, as ISO 80000-1 has it: what was a quotient is rounded once and exactly.
CREATE FUNCTION half_even(numerator numeric, denominator numeric, digits integer)
RETURNS numeric LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT (whole + CASE WHEN 2 * rest > denominator OR (2 * rest = denominator AND whole % 2 = 1) THEN 1 ELSE 0 END)
         * ('1e-' || digits)::numeric
  FROM (SELECT numerator * ('1e' || digits)::numeric AS scaled) AS s,
       LATERAL (SELECT div(scaled, denominator) AS whole, scaled % denominator AS rest) AS parts
$$;

CREATE FUNCTION currency_digits(currency text) RETURNS integer LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
  SELECT coalesce((SELECT digits FROM currencies WHERE code = currency), 2)
$$;


-- What of a fact decides between two that are told under one identity, as refused_facts keeps it.

CREATE FUNCTION conversion_content(c conversions) RETURNS jsonb LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
  SELECT jsonb_build_object('beneficiary', c.beneficiary, 'occurred_at', c.occurred_at, 'revenue', c.revenue,
                            'commission', c.commission, 'currency', c.currency, 'link_id', c.link_id, 'click_id', c.click_id)
$$;

CREATE FUNCTION refund_content(r order_refunds) RETURNS jsonb LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
  SELECT jsonb_build_object('refund_id', r.refund_id, 'occurred_at', r.occurred_at, 'amount', r.amount,
                            'currency', r.currency)
$$;


-- What an order comes to, from its facts alone.

CREATE TYPE order_target AS (
  order_id      text,
  beneficiary   text,
  origin        text,
  code          text,
  pixel_id      text,
  link_id       text,
  program_id    text,
  partner_id    text,
  revenue       numeric,
  refunded      numeric,
  refunded_at   timestamptz,
  canceled_at   timestamptz,
  currency      text,
  rate_percent  numeric,
  rate_source   text,
  amount        numeric,
  earnings      numeric,
  occurred_at   timestamptz
);

-- The status and the rates of an event's own time, or else the earliest known: sorted so that the first row is the one.
CREATE FUNCTION order_targets(ids text[]) RETURNS SETOF order_target LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
  WITH wanted AS (
    SELECT DISTINCT id FROM unnest(ids) AS t(id)
  ), claimed AS (  -- the earliest conversion, then the smaller pixel; a pixel before a link
    SELECT DISTINCT ON (c.order_id) c.*
    FROM wanted AS w JOIN conversions AS c ON c.order_id = w.id
    ORDER BY c.order_id, c.occurred_at, c.pixel_id, c.link_id
  ), vouched AS (  -- where there is none, the owner of a coupon that the order used
    SELECT DISTINCT ON (t.order_id) t.*, o.pixel_id, o.code
    FROM wanted AS w
    JOIN order_totals AS t ON t.order_id = w.id
    JOIN affiliate_coupon_usages AS u ON u.order_id = t.order_id
    JOIN affiliate_coupon_owners AS o ON o.code = u.code
    WHERE NOT EXISTS (SELECT FROM conversions AS c WHERE c.order_id = t.order_id)
    ORDER BY t.order_id, o.pixel_id, o.code
  ), attributed AS (
    SELECT order_id, beneficiary, 'conversion' AS origin, NULL AS code, pixel_id, link_id, revenue, commission, currency,
           occurred_at
    FROM claimed
    UNION ALL
    SELECT order_id, 'pixel:' || pixel_id, 'coupon', code, pixel_id, NULL, total, NULL, currency, occurred_at
    FROM vouched
  ), linked AS (  -- the link that is named, unless it is another pixel's; else the pixel's first
    SELECT a.order_id, a.beneficiary, a.origin, a.code, a.revenue, a.commission, a.currency, a.occurred_at,
           coalesce(a.pixel_id, named.pixel_id) AS pixel_id,
           coalesce(named.id, first.id, CASE WHEN a.pixel_id IS NULL THEN a.link_id END) AS link_id,
           coalesce(named.program_id, first.program_id) AS program_id,
           coalesce(named.partner_id, first.partner_id) AS partner_id
    FROM attributed AS a
    LEFT JOIN links AS named
      ON named.id = a.link_id AND (a.pixel_id IS NULL OR named.pixel_id IS NULL OR named.pixel_id = a.pixel_id)
    LEFT JOIN LATERAL (
      SELECT l.id, l.program_id, l.partner_id FROM links AS l
      WHERE named.id IS NULL AND l.pixel_id = a.pixel_id ORDER BY l.occurred_at, l.id LIMIT 1
    ) AS first ON true
  ), judged AS (
    SELECT l.*, c.canceled_at, r.refunded_at, least(coalesce(r.refunded, 0), l.revenue) AS refunded,
           coalesce(status.paused, false) AS paused,
           CASE WHEN l.commission IS NOT NULL THEN 'conversion'
                WHEN program.percent IS NOT NULL THEN 'program'
                ELSE 'default' END AS rate_source,
           coalesce(program.percent, fallback.percent, 0) AS percent,
           currency_digits(l.currency) AS digits
    FROM linked AS l
    LEFT JOIN order_cancellations AS c ON c.order_id = l.order_id
    LEFT JOIN LATERAL (
      SELECT sum(f.amount) AS refunded, max(f.occurred_at) AS refunded_at FROM order_refunds AS f
      WHERE f.order_id = l.order_id AND (f.currency IS NULL OR f.currency = l.currency)
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

-- What is still to be posted, so that what is posted for each order, beneficiary and currency comes to its target. Rows that
-- were written by hand or imported are a fact of their own while their order has no attribution.
CREATE FUNCTION commission_differences(targets order_target[], ids text[])
RETURNS TABLE (order_id text, beneficiary text, partner_id text, program_id text, link_id text, currency text,
               amount numeric, earnings numeric)
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
  WITH imported AS (
    SELECT c.order_id, c.beneficiary, c.partner_id, c.program_id, c.link_id, c.currency,
           sum(c.amount) AS amount, sum(c.earnings) AS earnings
    FROM commissions AS c
    WHERE c.order_id = ANY (ids) AND c.origin = 'manual'
      AND NOT EXISTS (SELECT FROM unnest(targets) AS t WHERE t.order_id = c.order_id)
    GROUP BY 1, 2, 3, 4, 5, 6
  ), reduced AS (  -- an order that was imported in several rows loses its refund in proportion
    SELECT i.*, c.canceled_at, i.total - least(i.total, coalesce(r.refunded, 0)) AS remainder,
           i.total > 0 AND i.amount > 0 AND i.earnings >= 0 AND r.refunded > 0 AS is_reduced
    FROM (SELECT *, sum(amount) OVER (PARTITION BY order_id, currency) AS total FROM imported) AS i
    LEFT JOIN order_cancellations AS c ON c.order_id = i.order_id
    LEFT JOIN LATERAL (
      SELECT sum(f.amount) AS refunded FROM order_refunds AS f
      WHERE f.order_id = i.order_id AND (f.currency IS NULL OR f.currency = i.currency)
    ) AS r ON true
  ), owed AS (
    SELECT t.order_id, t.beneficiary, t.partner_id, t.program_id, t.link_id, t.currency, t.amount, t.earnings
    FROM unnest(targets) AS t
    UNION ALL
    SELECT i.order_id, i.beneficiary, i.partner_id, i.program_id, i.link_id, i.currency,
           CASE WHEN canceled_at IS NOT NULL THEN 0
                WHEN is_reduced THEN half_even(amount * remainder, total, 6)
                ELSE amount END,
           CASE WHEN canceled_at IS NOT NULL THEN 0
                WHEN is_reduced THEN half_even(earnings * remainder, total, currency_digits(i.currency))
                ELSE earnings END
    FROM reduced AS i
  )
  SELECT order_id, beneficiary, partner_id, program_id, link_id, currency, sum(amount), sum(earnings)
  FROM (
    SELECT * FROM owed
    UNION ALL
    SELECT c.order_id, c.beneficiary, c.partner_id, c.program_id, c.link_id, c.currency, -c.amount, -c.earnings
    FROM commissions AS c WHERE c.order_id = ANY (ids)
  ) AS signed
  GROUP BY 1, 2, 3, 4, 5, 6
  HAVING sum(amount) <> 0 OR sum(earnings) <> 0
$$;


-- The daily roll-up of attributions: rows of a currency, which clicks never touch.

-- Make and hold the rows that will be counted, in one order; a row that another transaction has just removed is made anew.
CREATE FUNCTION hold_daily(pixels text[], days date[], of_currencies text[])
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
  INSERT INTO affiliate_daily AS d (pixel_id, day, currency)
  SELECT DISTINCT pixel_id COLLATE "C", day, currency COLLATE "C"
  FROM unnest(pixels, days, of_currencies) AS t(pixel_id, day, currency)
  WHERE pixel_id IS NOT NULL
  ORDER BY 1, 2, 3
  ON CONFLICT (pixel_id, day, currency) DO UPDATE SET updated_at = now();
END $$;

-- A row that counts nothing any more is none.
CREATE FUNCTION drop_empty_daily(pixels text[], days date[], of_currencies text[])
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
  DELETE FROM affiliate_daily AS d
  USING unnest(pixels, days, of_currencies) AS t(pixel_id, day, currency)
  WHERE d.pixel_id = t.pixel_id AND d.day = t.day AND d.currency = t.currency AND d.currency <> ''
    AND d.conversions = 0 AND d.revenue = 0 AND d.commission = 0;
END $$;

CREATE FUNCTION add_to_daily(pixels text[], days date[], of_currencies text[], counts bigint[], revenues numeric[],
                             commissions numeric[])
RETURNS void LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  PERFORM hold_daily(pixels, days, of_currencies);
  UPDATE affiliate_daily AS d
  SET conversions = d.conversions + t.count, revenue = d.revenue + t.revenue, commission = d.commission + t.commission
  FROM unnest(pixels, days, of_currencies, counts, revenues, commissions)
    AS t(pixel_id, day, currency, count, revenue, commission)
  WHERE d.pixel_id = t.pixel_id AND d.day = t.day AND d.currency = t.currency;
  PERFORM drop_empty_daily(pixels, days, of_currencies);
END $$;

CREATE FUNCTION fold_attributions_inserted() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  PERFORM add_to_daily(array_agg(pixel_id), array_agg(day), array_agg(currency), array_agg(count), array_agg(revenue),
                       array_agg(commission))
  FROM (
    SELECT pixel_id, (occurred_at AT TIME ZONE 'UTC')::date AS day, currency, count(*) AS count,
           sum(revenue) AS revenue, sum(commission) AS commission
    FROM inserted WHERE status <> 'reversed' AND pixel_id IS NOT NULL GROUP BY 1, 2, 3
  ) AS deltas
  HAVING count(*) > 0;
  RETURN NULL;
END $$;

CREATE FUNCTION fold_attributions_changed() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  PERFORM add_to_daily(array_agg(pixel_id), array_agg(day), array_agg(currency), array_agg(count), array_agg(revenue),
                       array_agg(commission))
  FROM (
    SELECT pixel_id, (occurred_at AT TIME ZONE 'UTC')::date AS day, currency, sum(sign)::bigint AS count,
           sum(sign * revenue) AS revenue, sum(sign * commission) AS commission
    FROM (
      SELECT pixel_id, occurred_at, currency, 1 AS sign, revenue, commission FROM after_change
      WHERE status <> 'reversed' AND pixel_id IS NOT NULL
      UNION ALL
      SELECT pixel_id, occurred_at, currency, -1, revenue, commission FROM before_change
      WHERE status <> 'reversed' AND pixel_id IS NOT NULL
    ) AS signed
    GROUP BY 1, 2, 3 HAVING sum(sign) <> 0 OR sum(sign * revenue) <> 0 OR sum(sign * commission) <> 0
  ) AS deltas
  HAVING count(*) > 0;
  RETURN NULL;
END $$;

CREATE FUNCTION fold_attributions_deleted() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  PERFORM add_to_daily(array_agg(pixel_id), array_agg(day), array_agg(currency), array_agg(count), array_agg(revenue),
                       array_agg(commission))
  FROM (
    SELECT pixel_id, (occurred_at AT TIME ZONE 'UTC')::date AS day, currency, -count(*) AS count,
           -sum(revenue) AS revenue, -sum(commission) AS commission
    FROM deleted WHERE status <> 'reversed' AND pixel_id IS NOT NULL GROUP BY 1, 2, 3
  ) AS deltas
  HAVING count(*) > 0;
  RETURN NULL;
END $$;

CREATE FUNCTION fold_attributions_truncated() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  DELETE FROM affiliate_daily WHERE currency <> '';
  RETURN NULL;
END $$;

CREATE TRIGGER fold_inserted AFTER INSERT ON aff_attributions REFERENCING NEW TABLE AS inserted
  FOR EACH STATEMENT EXECUTE FUNCTION fold_attributions_inserted();
CREATE TRIGGER fold_changed AFTER UPDATE ON aff_attributions
  REFERENCING OLD TABLE AS before_change NEW TABLE AS after_change
  FOR EACH STATEMENT EXECUTE FUNCTION fold_attributions_changed();
CREATE TRIGGER fold_deleted AFTER DELETE ON aff_attributions REFERENCING OLD TABLE AS deleted
  FOR EACH STATEMENT EXECUTE FUNCTION fold_attributions_deleted();
CREATE TRIGGER fold_truncated AFTER TRUNCATE ON aff_attributions
  FOR EACH STATEMENT EXECUTE FUNCTION fold_attributions_truncated();


-- Settling: every change of a fact names its orders here, and they are settled once, when the transaction commits. So locks
-- are taken in one order whatever the transaction wrote before, and nobody can write a fact and forget its consequence.

CREATE TABLE order_settlements (
  order_id  text COLLATE "C" PRIMARY KEY
);

COMMENT ON TABLE order_settlements IS 'a row for each order that was ever settled: whoever settles it holds the row, so that facts in two open transactions meet';

CREATE UNLOGGED TABLE settlements_due (
  id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  transaction  xid8 NOT NULL DEFAULT pg_current_xact_id(),
  order_ids    text[] NOT NULL
);

CREATE INDEX settlements_due_by_transaction ON settlements_due (transaction);

COMMENT ON TABLE settlements_due IS 'empty in every committed snapshot';

CREATE FUNCTION settle_later(ids text[]) RETURNS void LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  IF cardinality(ids) > 0 THEN
    INSERT INTO settlements_due (order_ids) VALUES (ids);
  END IF;
END $$;

CREATE FUNCTION settle_orders(ids text[]) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
  targets order_target[];
  pixels text[];
  days date[];
  of_currencies text[];
BEGIN
  PERFORM hold_orders(ids);

  -- the statements below see what others have committed by now, and nobody else changes these orders
  SELECT coalesce(array_agg(t), '{}') INTO targets FROM order_targets(ids) AS t;

  -- every row of the roll-up that may be touched below, at once and in order
  SELECT array_agg(pixel_id), array_agg(day), array_agg(currency) INTO pixels, days, of_currencies
  FROM (
    SELECT pixel_id, (occurred_at AT TIME ZONE 'UTC')::date AS day, currency FROM aff_attributions WHERE order_id = ANY (ids)
    UNION
    SELECT pixel_id, (occurred_at AT TIME ZONE 'UTC')::date, currency FROM unnest(targets)
  ) AS touched;
  PERFORM hold_daily(pixels, days, of_currencies);

  DELETE FROM aff_attributions AS a
  WHERE a.order_id = ANY (ids) AND NOT EXISTS (SELECT FROM unnest(targets) AS t WHERE t.order_id = a.order_id);

  INSERT INTO aff_attributions AS a (order_id, pixel_id, link_id, program_id, partner_id, beneficiary, origin, code, revenue,
                                     refunded, commission, currency, rate_percent, rate_source, status, occurred_at)
  SELECT order_id, pixel_id, link_id, program_id, partner_id, beneficiary, origin, code, revenue, refunded, earnings, currency,
         rate_percent, rate_source, CASE WHEN canceled_at IS NULL THEN 'pending' ELSE 'reversed' END, occurred_at
  FROM unnest(targets) ORDER BY order_id
  ON CONFLICT (order_id) DO UPDATE
  SET pixel_id = excluded.pixel_id, link_id = excluded.link_id, program_id = excluded.program_id,
      partner_id = excluded.partner_id, beneficiary = excluded.beneficiary, origin = excluded.origin, code = excluded.code,
      revenue = excluded.revenue, refunded = excluded.refunded, commission = excluded.commission,
      currency = excluded.currency, rate_percent = excluded.rate_percent, rate_source = excluded.rate_source,
      status = CASE WHEN excluded.status = 'reversed' OR a.status = 'reversed' OR a.beneficiary <> excluded.beneficiary
                    THEN excluded.status ELSE a.status END,
      occurred_at = excluded.occurred_at, updated_at = now()
  WHERE (a.pixel_id, a.link_id, a.program_id, a.partner_id, a.beneficiary, a.origin, a.code, a.revenue, a.refunded,
         a.commission, a.currency, a.rate_percent, a.rate_source, a.occurred_at, a.status = 'reversed')
    IS DISTINCT FROM
        (excluded.pixel_id, excluded.link_id, excluded.program_id, excluded.partner_id, excluded.beneficiary, excluded.origin,
         excluded.code, excluded.revenue, excluded.refunded, excluded.commission, excluded.currency, excluded.rate_percent,
         excluded.rate_source, excluded.occurred_at, excluded.status = 'reversed');

  PERFORM drop_empty_daily(pixels, days, of_currencies);
  PERFORM post_commissions(targets, ids);
END $$;

-- Post one row for each difference, and say for each what caused it. Called by settle_orders alone, which holds the orders.
CREATE FUNCTION post_commissions(targets order_target[], ids text[])
RETURNS void LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  -- what was not known when the rows were posted, and does not contradict them
  UPDATE commissions AS c
  SET partner_id = coalesce(c.partner_id, t.partner_id), program_id = coalesce(c.program_id, t.program_id),
      link_id = coalesce(c.link_id, t.link_id)
  FROM unnest(targets) AS t
  WHERE c.order_id = t.order_id AND c.beneficiary = t.beneficiary
    AND coalesce(c.partner_id = t.partner_id, true) AND coalesce(c.program_id = t.program_id, true)
    AND coalesce(c.link_id = t.link_id, true)
    AND (c.partner_id IS NULL AND t.partner_id IS NOT NULL OR c.program_id IS NULL AND t.program_id IS NOT NULL
         OR c.link_id IS NULL AND t.link_id IS NOT NULL);

  INSERT INTO commissions (partner_id, program_id, link_id, order_id, beneficiary, kind, cause, origin, amount, earnings,
                           rate_percent, rate_source, currency, status, occurred_at, earned_at)
  SELECT d.partner_id, d.program_id, d.link_id, d.order_id, d.beneficiary,
         CASE WHEN (d.earnings, d.amount) > (0, 0) THEN 'sale' ELSE 'reversal' END,
         why.reason || '#' || coalesce(before.last, 0) + row_number() OVER (PARTITION BY d.order_id ORDER BY d.earnings, d.amount),
         'settled', d.amount, d.earnings, t.rate_percent, t.rate_source, d.currency,
         CASE WHEN before.approved THEN 'approved' ELSE 'pending' END,
         coalesce(CASE why.reason WHEN 'canceled' THEN c.canceled_at
                                  WHEN 'refunded' THEN coalesce(t.refunded_at, r.refunded_at) END,
                  t.occurred_at, before.earned_at, now()),
         coalesce(before.earned_at, t.occurred_at, now())
  FROM commission_differences(targets, ids) AS d
  LEFT JOIN unnest(targets) AS t ON t.order_id = d.order_id
  LEFT JOIN order_cancellations AS c ON c.order_id = d.order_id
  LEFT JOIN LATERAL (
    SELECT max(f.occurred_at) AS refunded_at FROM order_refunds AS f WHERE f.order_id = d.order_id
  ) AS r ON true
  LEFT JOIN LATERAL (
    SELECT max(substring(p.cause FROM '#([0-9]{1,15})$')::bigint) AS last,
           bool_or(p.beneficiary = d.beneficiary AND p.status IN ('approved', 'paid')) AS approved,
           bool_or(p.origin = 'manual' AND p.beneficiary = d.beneficiary) AS imported,
           min(p.earned_at) FILTER (WHERE p.beneficiary = d.beneficiary) AS earned_at,
           count(*) FILTER (WHERE p.beneficiary = d.beneficiary) AS count
    FROM commissions AS p WHERE p.order_id = d.order_id
  ) AS before ON true
  CROSS JOIN LATERAL (
    SELECT CASE
      WHEN t.order_id IS NOT NULL AND (t.beneficiary, t.partner_id, t.program_id, t.link_id, t.currency)
        IS DISTINCT FROM (d.beneficiary, d.partner_id, d.program_id, d.link_id, d.currency) THEN 'moved'
      WHEN c.canceled_at IS NOT NULL THEN 'canceled'
      WHEN t.order_id IS NULL AND NOT before.imported THEN 'withdrawn'
      WHEN t.rate_source = 'paused' THEN 'paused'
      WHEN before.count = 0 THEN t.origin
      WHEN d.amount = 0 THEN 'rate'
      WHEN d.amount < 0 AND (t.refunded > 0 OR t.order_id IS NULL AND r.refunded_at IS NOT NULL) THEN 'refunded'
      ELSE 'corrected' END AS reason
  ) AS why;

  -- what came to nothing before anybody was paid is no claim on anybody
  UPDATE commissions AS c SET status = 'canceled'
  FROM (
    SELECT order_id, beneficiary, partner_id, program_id, link_id, currency
    FROM commissions WHERE order_id = ANY (ids)
    GROUP BY 1, 2, 3, 4, 5, 6
    HAVING sum(earnings) = 0 AND sum(amount) = 0 AND bool_and(status <> 'paid')
  ) AS closed
  WHERE c.order_id = closed.order_id AND c.beneficiary = closed.beneficiary AND c.currency = closed.currency
    AND (c.partner_id, c.program_id, c.link_id) IS NOT DISTINCT FROM (closed.partner_id, closed.program_id, closed.link_id)
    AND c.status IN ('pending', 'approved');
  PERFORM show_commission_status(ids);
END $$;

CREATE FUNCTION settle_due() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
  ids text[];
BEGIN
  IF NOT EXISTS (SELECT FROM settlements_due WHERE id = NEW.id) THEN  -- settled with the first of its transaction
    RETURN NULL;
  END IF;
  IF current_setting('transaction_isolation') IN ('repeatable read', 'serializable') THEN
    RAISE feature_not_supported USING
      MESSAGE = 'facts of orders are written in READ COMMITTED: a snapshot that is older than their locks misses what met them';
  END IF;

  WITH due AS (
    DELETE FROM settlements_due WHERE transaction = pg_current_xact_id() RETURNING order_ids
  )
  SELECT array_agg(DISTINCT id COLLATE "C" ORDER BY id COLLATE "C") INTO ids FROM due, unnest(order_ids) AS t(id);
  FOR start IN 1..coalesce(cardinality(ids), 0) BY 100000 LOOP  -- once, but for what an operator does to a whole ledger
    PERFORM settle_orders(ids[start : start + 99999]);
  END LOOP;
  RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER settle_at_commit AFTER INSERT ON settlements_due
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION settle_due();


-- Which orders a change concerns.

CREATE FUNCTION settle_changed_orders() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  PERFORM settle_later(array_agg(DISTINCT order_id)) FROM changed;
  RETURN NULL;
END $$;

CREATE FUNCTION settle_imported_orders() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  PERFORM settle_later(array_agg(DISTINCT order_id)) FROM changed WHERE origin = 'manual';
  RETURN NULL;
END $$;

CREATE FUNCTION settle_changed_imports() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  PERFORM settle_later(array_agg(DISTINCT o.order_id))
  FROM after_change AS n JOIN before_change AS b USING (id), LATERAL (VALUES (n.order_id), (b.order_id)) AS o(order_id)
  WHERE 'manual' IN (n.origin, b.origin)
    AND (n.order_id, n.beneficiary, n.amount, n.earnings, n.currency)
        IS DISTINCT FROM (b.order_id, b.beneficiary, b.amount, b.earnings, b.currency);
  RETURN NULL;
END $$;

CREATE FUNCTION settle_all_orders() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  PERFORM settle_later(array_agg(order_id)) FROM order_settlements;
  RETURN NULL;
END $$;

-- A link matters to the orders that name it, and to those of its pixel if it is the pixel's first.
CREATE FUNCTION settle_orders_of_links() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  PERFORM settle_later(array_agg(DISTINCT order_id))
  FROM (
    SELECT c.order_id FROM changed AS l JOIN conversions AS c ON c.link_id = l.id
    UNION ALL
    SELECT a.order_id
    FROM changed AS l JOIN aff_attributions AS a ON a.pixel_id = l.pixel_id
    WHERE NOT EXISTS (SELECT FROM links AS k WHERE k.pixel_id = l.pixel_id
                        AND (k.occurred_at, k.id) < (l.occurred_at, l.id))
  ) AS concerned;
  RETURN NULL;
END $$;

-- A status or a rate matters from its own time on, and to what came before if it is the first.
CREATE FUNCTION settle_orders_of_statuses() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  PERFORM settle_later(array_agg(DISTINCT a.order_id))
  FROM changed AS s JOIN aff_attributions AS a ON a.pixel_id = s.pixel_id
  WHERE a.occurred_at >= s.valid_from
     OR NOT EXISTS (SELECT FROM affiliate_status_changes AS e WHERE e.pixel_id = s.pixel_id
                      AND (e.valid_from, e.id) < (s.valid_from, s.id));
  RETURN NULL;
END $$;

CREATE FUNCTION settle_orders_of_rates() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  PERFORM settle_later(array_agg(DISTINCT a.order_id))
  FROM changed AS r JOIN aff_attributions AS a ON a.program_id = r.program_id
  WHERE a.rate_source <> 'conversion'
    AND (a.occurred_at >= r.valid_from
      OR NOT EXISTS (SELECT FROM program_rates AS e WHERE e.program_id = r.program_id
                       AND (e.valid_from, e.id) < (r.valid_from, r.id)));
  RETURN NULL;
END $$;

CREATE FUNCTION settle_orders_of_default_rates() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  PERFORM settle_later(array_agg(DISTINCT a.order_id))
  FROM changed AS r JOIN aff_attributions AS a ON a.rate_source <> 'conversion'
  WHERE a.occurred_at >= r.valid_from
     OR NOT EXISTS (SELECT FROM default_rates AS e WHERE (e.valid_from, e.id) < (r.valid_from, r.id));
  RETURN NULL;
END $$;

CREATE FUNCTION settle_orders_of_coupons() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  PERFORM settle_later(array_agg(DISTINCT t.order_id))
  FROM order_totals AS t
  JOIN affiliate_coupon_usages AS u ON u.order_id = t.order_id
  JOIN changed AS o ON o.code = u.code;
  RETURN NULL;
END $$;

-- A usage matters where its code is an affiliate's. The order's total is not looked for: it may stand in a transaction that
-- is still open, and is met when both are settled.
CREATE FUNCTION settle_orders_of_usages() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  PERFORM settle_later(array_agg(DISTINCT u.order_id))
  FROM changed AS u JOIN affiliate_coupon_owners AS o ON o.code = u.code;
  RETURN NULL;
END $$;

-- Owners of coupons meet usages and totals: both locks, alone.
CREATE FUNCTION lock_coupon_owners() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  PERFORM pg_advisory_xact_lock(3087, 1);
  PERFORM pg_advisory_xact_lock(3087, 2);
  RETURN NULL;
END $$;

-- Where coupons have owners, a usage is a fact of attribution. Whether they have is settled under the lock of the orders,
-- which is taken before: triggers fire by name.
CREATE FUNCTION lock_attributions_of_usages() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  IF EXISTS (SELECT FROM affiliate_coupon_owners) THEN
    PERFORM pg_advisory_xact_lock_shared(3087, 2);
  END IF;
  RETURN NULL;
END $$;


CREATE TRIGGER lock_before_change BEFORE INSERT OR UPDATE OR DELETE ON conversions
  FOR EACH STATEMENT EXECUTE FUNCTION lock_attributions_shared();
CREATE TRIGGER lock_before_change BEFORE INSERT OR UPDATE OR DELETE ON order_totals
  FOR EACH STATEMENT EXECUTE FUNCTION lock_attributions_shared();
CREATE TRIGGER lock_before_change BEFORE INSERT OR UPDATE OR DELETE ON affiliate_status_changes
  FOR EACH STATEMENT EXECUTE FUNCTION lock_attributions_exclusive();
CREATE TRIGGER lock_before_change BEFORE INSERT OR UPDATE OF status, pixel_id ON affiliates
  FOR EACH STATEMENT EXECUTE FUNCTION lock_attributions_exclusive();
CREATE TRIGGER lock_before_change BEFORE INSERT OR UPDATE OR DELETE ON affiliate_coupon_owners
  FOR EACH STATEMENT EXECUTE FUNCTION lock_coupon_owners();
CREATE TRIGGER lock_then_attributions BEFORE INSERT OR UPDATE OR DELETE ON affiliate_coupon_usages
  FOR EACH STATEMENT EXECUTE FUNCTION lock_attributions_of_usages();

CREATE TRIGGER settle_inserted AFTER INSERT ON conversions REFERENCING NEW TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION settle_changed_orders();
CREATE TRIGGER settle_before_change AFTER UPDATE ON conversions REFERENCING OLD TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION settle_changed_orders();
CREATE TRIGGER settle_after_change AFTER UPDATE ON conversions REFERENCING NEW TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION settle_changed_orders();
CREATE TRIGGER settle_deleted AFTER DELETE ON conversions REFERENCING OLD TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION settle_changed_orders();
CREATE TRIGGER settle_truncated AFTER TRUNCATE ON conversions
  FOR EACH STATEMENT EXECUTE FUNCTION settle_all_orders();

CREATE TRIGGER settle_inserted AFTER INSERT ON order_refunds REFERENCING NEW TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION settle_changed_orders();
CREATE TRIGGER settle_before_change AFTER UPDATE ON order_refunds REFERENCING OLD TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION settle_changed_orders();
CREATE TRIGGER settle_after_change AFTER UPDATE ON order_refunds REFERENCING NEW TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION settle_changed_orders();
CREATE TRIGGER settle_deleted AFTER DELETE ON order_refunds REFERENCING OLD TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION settle_changed_orders();
CREATE TRIGGER settle_truncated AFTER TRUNCATE ON order_refunds
  FOR EACH STATEMENT EXECUTE FUNCTION settle_all_orders();

CREATE TRIGGER settle_inserted AFTER INSERT ON order_totals REFERENCING NEW TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION settle_changed_orders();
CREATE TRIGGER settle_before_change AFTER UPDATE ON order_totals REFERENCING OLD TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION settle_changed_orders();
CREATE TRIGGER settle_after_change AFTER UPDATE ON order_totals REFERENCING NEW TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION settle_changed_orders();
CREATE TRIGGER settle_deleted AFTER DELETE ON order_totals REFERENCING OLD TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION settle_changed_orders();
CREATE TRIGGER settle_truncated AFTER TRUNCATE ON order_totals
  FOR EACH STATEMENT EXECUTE FUNCTION settle_all_orders();

CREATE TRIGGER settle_inserted AFTER INSERT ON order_cancellations REFERENCING NEW TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION settle_changed_orders();
CREATE TRIGGER settle_before_change AFTER UPDATE ON order_cancellations REFERENCING OLD TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION settle_changed_orders();
CREATE TRIGGER settle_after_change AFTER UPDATE ON order_cancellations REFERENCING NEW TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION settle_changed_orders();
CREATE TRIGGER settle_deleted AFTER DELETE ON order_cancellations REFERENCING OLD TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION settle_changed_orders();
CREATE TRIGGER settle_truncated AFTER TRUNCATE ON order_cancellations
  FOR EACH STATEMENT EXECUTE FUNCTION settle_all_orders();

CREATE TRIGGER settle_inserted AFTER INSERT ON links REFERENCING NEW TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION settle_orders_of_links();
CREATE TRIGGER settle_before_change AFTER UPDATE ON links REFERENCING OLD TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION settle_orders_of_links();
CREATE TRIGGER settle_after_change AFTER UPDATE ON links REFERENCING NEW TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION settle_orders_of_links();
CREATE TRIGGER settle_deleted AFTER DELETE ON links REFERENCING OLD TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION settle_orders_of_links();
CREATE TRIGGER settle_truncated AFTER TRUNCATE ON links
  FOR EACH STATEMENT EXECUTE FUNCTION settle_all_orders();

CREATE TRIGGER settle_inserted AFTER INSERT ON affiliate_status_changes REFERENCING NEW TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION settle_orders_of_statuses();
CREATE TRIGGER settle_before_change AFTER UPDATE ON affiliate_status_changes REFERENCING OLD TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION settle_orders_of_statuses();
CREATE TRIGGER settle_after_change AFTER UPDATE ON affiliate_status_changes REFERENCING NEW TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION settle_orders_of_statuses();
CREATE TRIGGER settle_deleted AFTER DELETE ON affiliate_status_changes REFERENCING OLD TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION settle_orders_of_statuses();
CREATE TRIGGER settle_truncated AFTER TRUNCATE ON affiliate_status_changes
  FOR EACH STATEMENT EXECUTE FUNCTION settle_all_orders();

CREATE TRIGGER settle_inserted AFTER INSERT ON program_rates REFERENCING NEW TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION settle_orders_of_rates();
CREATE TRIGGER settle_before_change AFTER UPDATE ON program_rates REFERENCING OLD TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION settle_orders_of_rates();
CREATE TRIGGER settle_after_change AFTER UPDATE ON program_rates REFERENCING NEW TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION settle_orders_of_rates();
CREATE TRIGGER settle_deleted AFTER DELETE ON program_rates REFERENCING OLD TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION settle_orders_of_rates();
CREATE TRIGGER settle_truncated AFTER TRUNCATE ON program_rates
  FOR EACH STATEMENT EXECUTE FUNCTION settle_all_orders();

CREATE TRIGGER settle_inserted AFTER INSERT ON default_rates REFERENCING NEW TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION settle_orders_of_default_rates();
CREATE TRIGGER settle_before_change AFTER UPDATE ON default_rates REFERENCING OLD TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION settle_orders_of_default_rates();
CREATE TRIGGER settle_after_change AFTER UPDATE ON default_rates REFERENCING NEW TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION settle_orders_of_default_rates();
CREATE TRIGGER settle_deleted AFTER DELETE ON default_rates REFERENCING OLD TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION settle_orders_of_default_rates();
CREATE TRIGGER settle_truncated AFTER TRUNCATE ON default_rates
  FOR EACH STATEMENT EXECUTE FUNCTION settle_all_orders();

CREATE TRIGGER settle_inserted AFTER INSERT ON affiliate_coupon_owners REFERENCING NEW TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION settle_orders_of_coupons();
CREATE TRIGGER settle_before_change AFTER UPDATE ON affiliate_coupon_owners REFERENCING OLD TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION settle_orders_of_coupons();
CREATE TRIGGER settle_after_change AFTER UPDATE ON affiliate_coupon_owners REFERENCING NEW TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION settle_orders_of_coupons();
CREATE TRIGGER settle_deleted AFTER DELETE ON affiliate_coupon_owners REFERENCING OLD TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION settle_orders_of_coupons();
CREATE TRIGGER settle_truncated AFTER TRUNCATE ON affiliate_coupon_owners
  FOR EACH STATEMENT EXECUTE FUNCTION settle_all_orders();

CREATE TRIGGER settle_inserted AFTER INSERT ON affiliate_coupon_usages REFERENCING NEW TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION settle_orders_of_usages();
CREATE TRIGGER settle_before_change AFTER UPDATE ON affiliate_coupon_usages REFERENCING OLD TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION settle_orders_of_usages();
CREATE TRIGGER settle_after_change AFTER UPDATE ON affiliate_coupon_usages REFERENCING NEW TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION settle_orders_of_usages();
CREATE TRIGGER settle_deleted AFTER DELETE ON affiliate_coupon_usages REFERENCING OLD TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION settle_orders_of_usages();
CREATE TRIGGER settle_truncated AFTER TRUNCATE ON affiliate_coupon_usages
  FOR EACH STATEMENT EXECUTE FUNCTION settle_all_orders();

CREATE TRIGGER settle_imported AFTER INSERT ON commissions REFERENCING NEW TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION settle_imported_orders();
CREATE TRIGGER settle_imported_deleted AFTER DELETE ON commissions REFERENCING OLD TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION settle_imported_orders();
CREATE TRIGGER settle_imported_changed AFTER UPDATE ON commissions
  REFERENCING OLD TABLE AS before_change NEW TABLE AS after_change
  FOR EACH STATEMENT EXECUTE FUNCTION settle_changed_imports();


-- Affiliates: their status has a history, whichever of the two is written.

CREATE FUNCTION keep_status_history() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
  pixels text[] := (
    SELECT array_agg(c.pixel_id ORDER BY c.pixel_id) FROM changed AS c
    WHERE c.status <> coalesce((SELECT s.status FROM affiliate_status_changes AS s WHERE s.pixel_id = c.pixel_id
                                ORDER BY s.valid_from DESC, s.id DESC LIMIT 1), ''));
BEGIN
  IF pixels IS NOT NULL THEN
    INSERT INTO affiliate_status_changes (pixel_id, status)
    SELECT pixel_id, status FROM affiliates WHERE pixel_id = ANY (pixels) ORDER BY pixel_id;
  END IF;
  RETURN NULL;
END $$;

CREATE FUNCTION show_latest_status() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  UPDATE affiliates AS a SET status = latest.status
  FROM (SELECT DISTINCT pixel_id FROM changed) AS c,
       LATERAL (SELECT status FROM affiliate_status_changes AS s WHERE s.pixel_id = c.pixel_id
                ORDER BY valid_from DESC, id DESC LIMIT 1) AS latest
  WHERE a.pixel_id = c.pixel_id AND a.status <> latest.status;
  RETURN NULL;
END $$;

CREATE TRIGGER history_inserted AFTER INSERT ON affiliates REFERENCING NEW TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION keep_status_history();
CREATE TRIGGER history_changed AFTER UPDATE ON affiliates REFERENCING NEW TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION keep_status_history();
CREATE TRIGGER show_inserted AFTER INSERT ON affiliate_status_changes REFERENCING NEW TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION show_latest_status();
CREATE TRIGGER show_changed AFTER UPDATE ON affiliate_status_changes REFERENCING NEW TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION show_latest_status();
CREATE TRIGGER show_deleted AFTER DELETE ON affiliate_status_changes REFERENCING OLD TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION show_latest_status();


-- Commissions by hand: an imported row needs no more than the columns that everybody knows.

CREATE FUNCTION complete_commission() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  NEW.beneficiary := coalesce(NEW.beneficiary, 'link:' || NEW.link_id, 'partner:' || NEW.partner_id, 'unknown');
  NEW.cause := coalesce(NEW.cause, 'imported#' || NEW.id);
  NEW.earned_at := coalesce(NEW.earned_at, NEW.occurred_at);
  RETURN NEW;
END $$;

CREATE TRIGGER complete BEFORE INSERT ON commissions
  FOR EACH ROW WHEN (NEW.origin = 'manual') EXECUTE FUNCTION complete_commission();
CREATE TRIGGER ids_ahead AFTER INSERT ON commissions REFERENCING NEW TABLE AS inserted
  FOR EACH STATEMENT EXECUTE FUNCTION keep_ids_ahead();
CREATE TRIGGER id_ahead BEFORE UPDATE OF id ON commissions
  FOR EACH ROW WHEN (OLD.id IS DISTINCT FROM NEW.id) EXECUTE FUNCTION keep_id_ahead();
CREATE TRIGGER ids_ahead AFTER INSERT ON affiliates REFERENCING NEW TABLE AS inserted
  FOR EACH STATEMENT EXECUTE FUNCTION keep_ids_ahead();
CREATE TRIGGER id_ahead BEFORE UPDATE OF id ON affiliates
  FOR EACH ROW WHEN (OLD.id IS DISTINCT FROM NEW.id) EXECUTE FUNCTION keep_id_ahead();


-- What a payout has paid is what it has paid.
CREATE FUNCTION refuse_change_of_paid() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  RAISE restrict_violation USING
    CONSTRAINT = 'paid_rows_stand', TABLE = 'commissions', SCHEMA = current_schema(),
    MESSAGE = format('commission %s was paid by payout %s: correct it by another row', OLD.id, OLD.payout_id);
END $$;

CREATE TRIGGER paid_stands BEFORE UPDATE ON commissions
  FOR EACH ROW WHEN (OLD.payout_id IS NOT NULL AND (
    (OLD.id, OLD.order_id, OLD.earnings, OLD.currency, OLD.status, OLD.payout_id)
      IS DISTINCT FROM (NEW.id, NEW.order_id, NEW.earnings, NEW.currency, NEW.status, NEW.payout_id)
    OR OLD.partner_id IS NOT NULL AND OLD.partner_id IS DISTINCT FROM NEW.partner_id))
  EXECUTE FUNCTION refuse_change_of_paid();
CREATE TRIGGER paid_stays BEFORE DELETE ON commissions
  FOR EACH ROW WHEN (OLD.payout_id IS NOT NULL) EXECUTE FUNCTION refuse_change_of_paid();


-- Paying. Both hold the orders, so that nothing is posted to them meanwhile.

-- Pending rows become payable once the holding period of their sale is over; answers how many did, 5,000 orders at a time.
CREATE FUNCTION approve_commissions(hold_days integer)
RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
  until timestamptz := now() - make_interval(days => hold_days);
  ids text[] := (
    SELECT array_agg(order_id) FROM (
      SELECT DISTINCT order_id FROM commissions WHERE status = 'pending' AND earned_at <= until LIMIT 5000) AS due);
  approved bigint;
BEGIN
  PERFORM hold_orders(ids);
  UPDATE commissions SET status = 'approved'
  WHERE order_id = ANY (ids) AND status = 'pending' AND earned_at <= until;
  GET DIAGNOSTICS approved = ROW_COUNT;
  PERFORM show_commission_status(ids);
  RETURN approved;
END $$;

-- Mark what is payable to a partner in one currency as paid; answers the payout, or null where nothing is due.
CREATE FUNCTION pay_commissions(partner text, of_currency text, reference text, actor text)
RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
  ids text[] := (
    SELECT array_agg(DISTINCT order_id) FROM commissions
    WHERE partner_id = partner AND currency = of_currency AND status = 'approved');
  payable bigint[];
  due numeric;
  payout bigint;
BEGIN
  PERFORM hold_orders(ids);
  -- the rows too: what is marked is what was summed, also where a status is written by hand meanwhile
  SELECT array_agg(id), sum(earnings) INTO payable, due
  FROM (
    SELECT id, earnings FROM commissions
    WHERE order_id = ANY (ids) AND partner_id = partner AND currency = of_currency AND status = 'approved'
    ORDER BY id FOR NO KEY UPDATE
  ) AS held;
  IF due IS NULL OR due <= 0 THEN
    RETURN NULL;
  END IF;
  INSERT INTO payouts (partner_id, currency, amount, reference, actor)
  VALUES (partner, of_currency, due, pay_commissions.reference, pay_commissions.actor)
  RETURNING id INTO payout;
  UPDATE commissions SET status = 'paid', payout_id = payout WHERE id = ANY (payable);
  PERFORM show_commission_status(ids);
  RETURN payout;
END $$;

CREATE FUNCTION hold_orders(ids text[]) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
  INSERT INTO order_settlements (order_id)
  SELECT DISTINCT id COLLATE "C" FROM unnest(ids) AS t(id) ORDER BY 1
  ON CONFLICT DO NOTHING;
  PERFORM FROM order_settlements WHERE order_id = ANY (ids) ORDER BY order_id FOR NO KEY UPDATE;
END $$;

-- An attribution is as far as its commissions: pending while one of them is, paid when all are.
CREATE FUNCTION show_commission_status(ids text[]) RETURNS void LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  UPDATE aff_attributions AS a SET status = c.status, updated_at = now()
  FROM (
    SELECT order_id, beneficiary,
           CASE WHEN bool_or(status = 'pending') THEN 'pending' WHEN bool_and(status = 'paid') THEN 'paid'
                ELSE 'approved' END AS status
    FROM commissions WHERE order_id = ANY (ids) AND status <> 'canceled'
    GROUP BY 1, 2
  ) AS c
  WHERE a.order_id = c.order_id AND a.beneficiary = c.beneficiary AND a.status NOT IN ('reversed', c.status);
END $$;


-- Commissions that were imported, or written while a constraint was missing: theirs is the partner of their link.

CREATE INDEX commissions_by_partner_and_time ON commissions (partner_id, occurred_at DESC, id DESC);

-- What is blank is unknown. These orders are held meanwhile, and nothing is posted to them.
CREATE FUNCTION clear_blanks_of_commissions(ids text[])
RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
  cleared bigint;
BEGIN
  PERFORM hold_orders(ids);
  UPDATE commissions
  SET partner_id = nullif(partner_id, ''), program_id = nullif(program_id, ''), link_id = nullif(link_id, '')
  WHERE order_id = ANY (ids) AND '' IN (partner_id, program_id, link_id);
  GET DIAGNOSTICS cleared = ROW_COUNT;
  RETURN cleared;
END $$;

-- Give the commissions of some orders the partner of their link, or else of the first link of their pixel; whole orders
-- at a time, since what is posted for one must add up under each partner.
CREATE FUNCTION find_partners_of_commissions(ids text[])
RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
  found bigint;
BEGIN
  PERFORM hold_orders(ids);
  UPDATE commissions AS c SET partner_id = p.partner_id
  FROM commissions AS k
  LEFT JOIN links AS l ON l.id = k.link_id
  CROSS JOIN LATERAL (
    SELECT coalesce(l.partner_id, (
      SELECT f.partner_id FROM links AS f
      WHERE l.id IS NULL AND k.beneficiary LIKE 'pixel:%' AND f.pixel_id = substr(k.beneficiary, 7)
      ORDER BY f.occurred_at, f.id LIMIT 1)) AS partner_id
  ) AS p
  WHERE c.id = k.id AND k.order_id = ANY (ids) AND k.partner_id IS NULL AND p.partner_id IS NOT NULL;
  GET DIAGNOSTICS found = ROW_COUNT;
  PERFORM settle_orders(ids);
  RETURN found;
END $$;

-- Whoever may connect must not pay, post or hold anything, nor hang a trigger that runs as the owner on a table of his own.
-- Who may is in grants.sql; a trigger that is there fires for everybody.
REVOKE ALL ON FUNCTION
  hold_orders(text[]),
  settle_orders(text[]),
  settle_due(),
  hold_daily(text[], date[], text[]),
  drop_empty_daily(text[], date[], text[]),
  approve_commissions(integer),
  pay_commissions(text, text, text, text),
  clear_blanks_of_commissions(text[]),
  find_partners_of_commissions(text[]),
  withdraw_enrollments(),
  keep_ids_ahead(),
  keep_id_ahead()
FROM PUBLIC;
