-- Vouchers: scans, claims, redemptions and impressions, and the roll-ups that analytics are read from.
--
-- Everything that is counted of a voucher is written while its row is held: by then whoever held it before has committed,
-- and a fresh statement sees what he wrote. So two facts of a voucher never miss each other, and no roll-up needs a lock.

CREATE TABLE vouchers (
  id                text COLLATE "C" PRIMARY KEY,
  business_id       text COLLATE "C",
  title             text,
  expires_at        timestamptz,
  created_at        timestamptz,
  scan_count        bigint NOT NULL DEFAULT 0,
  claim_count       bigint NOT NULL DEFAULT 0,
  redemption_count  bigint NOT NULL DEFAULT 0,
  impressions       bigint NOT NULL DEFAULT 0,
  source_id         integer,
  source_offset     bigint,
  updated_at        timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT id_not_blank CHECK (id <> ''),
  CONSTRAINT business_id_not_blank CHECK (business_id <> ''),
  CONSTRAINT created_at_is_a_time CHECK (created_at >= '1970-01-01Z' AND created_at < '9999-01-01Z'),
  CONSTRAINT counts_not_negative CHECK (least(scan_count, claim_count, redemption_count, impressions) >= 0)
) WITH (fillfactor = 50);

CREATE INDEX vouchers_by_expiry ON vouchers (expires_at) WHERE expires_at IS NOT NULL;

COMMENT ON COLUMN vouchers.created_at IS 'the time of voucher.created; null while only its scans, claims and the like are known';
COMMENT ON COLUMN vouchers.redemption_count IS 'successful attempts';

CREATE TABLE voucher_impressions (
  impression_id  text COLLATE "C" PRIMARY KEY,
  voucher_id     text COLLATE "C" NOT NULL,
  occurred_at    timestamptz NOT NULL DEFAULT now(),
  source_id      integer,
  source_offset  bigint,
  CONSTRAINT impression_id_not_blank CHECK (impression_id <> ''),
  CONSTRAINT voucher_id_not_blank CHECK (voucher_id <> ''),
  CONSTRAINT occurred_at_is_a_time CHECK (occurred_at >= '1970-01-01Z' AND occurred_at < '9999-01-01Z')
);

CREATE TABLE voucher_scans (
  scan_id        text COLLATE "C" NOT NULL,
  voucher_id     text COLLATE "C" NOT NULL,
  occurred_at    timestamptz NOT NULL DEFAULT now(),
  user_id        text COLLATE "C",
  scan_type      text COLLATE "C" NOT NULL,
  scan_source    text COLLATE "C" NOT NULL,
  device_info    jsonb NOT NULL DEFAULT '{}',
  location       jsonb,
  ip_address     text,
  user_agent     text,
  metadata       jsonb NOT NULL DEFAULT '{}',
  source_id      integer,
  source_offset  bigint,
  PRIMARY KEY (scan_id, occurred_at),
  CONSTRAINT scan_id_not_blank CHECK (scan_id <> ''),
  CONSTRAINT voucher_id_not_blank CHECK (voucher_id <> ''),
  CONSTRAINT user_id_not_blank CHECK (user_id <> ''),
  CONSTRAINT scan_type_is_known CHECK (scan_type IN ('CUSTOMER', 'BUSINESS')),
  CONSTRAINT scan_source_is_known CHECK (scan_source IN ('CAMERA', 'GALLERY', 'LINK', 'SHARE')),
  CONSTRAINT occurred_at_is_a_time CHECK (occurred_at >= '1970-01-01Z' AND occurred_at < '9999-01-01Z')
) PARTITION BY RANGE (occurred_at);

-- Which scans are of late: the table grows in the order of time, so a summary of its pages is all that is needed.
CREATE INDEX voucher_scans_by_time ON voucher_scans USING brin (occurred_at) WITH (pages_per_range = 32, autosummarize = on);

CREATE TABLE voucher_scans_default PARTITION OF voucher_scans DEFAULT;

COMMENT ON TABLE voucher_scans IS 'one row for each scan; a partition for each month (UTC), and one for what has none';

CREATE TABLE redemption_attempts (
  attempt_id      text COLLATE "C" PRIMARY KEY,
  attempted_at    timestamptz NOT NULL DEFAULT now(),
  voucher_id      text COLLATE "C" NOT NULL,
  business_id     text COLLATE "C" NOT NULL,
  customer_id     text COLLATE "C",
  successful      boolean NOT NULL DEFAULT false,
  failure_reason  text,
  device_info     jsonb NOT NULL DEFAULT '{}',
  location        jsonb,
  metadata        jsonb NOT NULL DEFAULT '{}',
  source_id       integer,
  source_offset   bigint,
  CONSTRAINT attempt_id_not_blank CHECK (attempt_id <> ''),
  CONSTRAINT voucher_id_not_blank CHECK (voucher_id <> ''),
  CONSTRAINT business_id_not_blank CHECK (business_id <> ''),
  CONSTRAINT customer_id_not_blank CHECK (customer_id <> ''),
  CONSTRAINT attempted_at_is_a_time CHECK (attempted_at >= '1970-01-01Z' AND attempted_at < '9999-01-01Z')
);

CREATE INDEX redemption_attempts_by_voucher ON redemption_attempts (voucher_id, customer_id);
CREATE INDEX redemption_attempts_failed ON redemption_attempts (attempted_at) WHERE NOT successful;

-- A customer's wallet: the claim, which is this table's own fact, and what is derived for it.
CREATE TABLE customer_vouchers (
  customer_id               text COLLATE "C" NOT NULL,
  voucher_id                text COLLATE "C" NOT NULL,
  claimed_at                timestamptz DEFAULT now(),
  metadata                  jsonb NOT NULL DEFAULT '{}',
  status                    text COLLATE "C" NOT NULL DEFAULT 'CLAIMED',
  redeemed_at               timestamptz,
  first_scanned_at          timestamptz,
  notification_preferences  jsonb NOT NULL DEFAULT '{}',
  last_viewed_at            timestamptz,
  source_id                 integer,
  source_offset             bigint,
  PRIMARY KEY (customer_id, voucher_id),
  CONSTRAINT customer_id_not_blank CHECK (customer_id <> ''),
  CONSTRAINT voucher_id_not_blank CHECK (voucher_id <> ''),
  CONSTRAINT status_is_known CHECK (status IN ('CLAIMED', 'REDEEMED', 'EXPIRED')),
  CONSTRAINT claimed_or_redeemed CHECK (claimed_at IS NOT NULL OR status = 'REDEEMED'),
  CONSTRAINT redeemed_when_it_says_so CHECK (status = 'REDEEMED' OR redeemed_at IS NULL),
  CONSTRAINT claimed_at_is_a_time CHECK (claimed_at >= '1970-01-01Z' AND claimed_at < '9999-01-01Z'),
  CONSTRAINT redeemed_at_is_a_time CHECK (redeemed_at >= '1970-01-01Z' AND redeemed_at < '9999-01-01Z')
) WITH (fillfactor = 70);

-- Whole keys, in another order: where only the half of a key stood in an index, the planner took it for the key, as long as its
-- statistics knew of few rows a voucher, and read all claims of a popular one for each of them.
CREATE INDEX customer_vouchers_by_voucher ON customer_vouchers (voucher_id, customer_id);
CREATE INDEX customer_vouchers_open ON customer_vouchers (voucher_id) WHERE status = 'CLAIMED';

COMMENT ON COLUMN customer_vouchers.claimed_at IS 'the earliest claim; null where the voucher was redeemed without one';
COMMENT ON COLUMN customer_vouchers.redeemed_at IS 'the earliest successful attempt of this customer';
COMMENT ON COLUMN customer_vouchers.first_scanned_at IS 'the earliest scan of the voucher by this customer';

-- The wallet as it is shown: what was claimed first stands first, and what was never claimed last.
CREATE VIEW customer_wallets AS
SELECT customer_id, voucher_id, status, claimed_at, redeemed_at,
       row_number() OVER (PARTITION BY customer_id ORDER BY claimed_at, voucher_id) AS wallet_order,
       notification_preferences, last_viewed_at, metadata
FROM customer_vouchers;

-- What was told of a fact once more, with another content that does not stand: the earlier does, then the smaller.
CREATE TABLE refused_voucher_facts (
  voucher_id     text COLLATE "C" NOT NULL,
  topic          text COLLATE "C" NOT NULL,
  content        jsonb NOT NULL,
  digest         text COLLATE "C" GENERATED ALWAYS AS (md5(content::text)) STORED,
  source_id      integer,
  source_offset  bigint,
  PRIMARY KEY (voucher_id, topic, digest)
);

COMMENT ON COLUMN refused_voucher_facts.topic IS 'by its default name';
COMMENT ON COLUMN refused_voucher_facts.digest IS 'of the content, which may be longer than an index takes';


-- What of a fact decides between two that are told under one identity, as refused_voucher_facts keeps it; a row that was
-- redeemed only tells of no claim.
CREATE FUNCTION claim_content(c customer_vouchers) RETURNS jsonb LANGUAGE sql STABLE
SET search_path FROM CURRENT SET TimeZone = 'UTC' AS $$
  SELECT CASE WHEN c.claimed_at IS NOT NULL
              THEN jsonb_build_object('customer_id', c.customer_id, 'claimed_at', c.claimed_at, 'metadata', c.metadata) END
$$;

CREATE FUNCTION attempt_content(a redemption_attempts) RETURNS jsonb LANGUAGE sql STABLE
SET search_path FROM CURRENT SET TimeZone = 'UTC' AS $$
  SELECT to_jsonb(a) - ARRAY['source_id', 'source_offset']
$$;

CREATE TYPE attempt_order AS (
  attempted_at    timestamptz,
  voucher_id      text COLLATE "C",
  business_id     text COLLATE "C",
  customer_id     text COLLATE "C",
  successful      boolean,
  failure_reason  text COLLATE "C",
  device_info     text COLLATE "C",
  location        text COLLATE "C",
  metadata        text COLLATE "C"
);

-- Of two attempts of one identity the smaller in this order stands, so the earlier; what is missing is less than anything.
CREATE FUNCTION attempt_order(a redemption_attempts) RETURNS attempt_order LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
  SELECT ROW(a.attempted_at, a.voucher_id, a.business_id, coalesce(a.customer_id, ''), a.successful,
             coalesce(a.failure_reason, ''), a.device_info::text, coalesce(a.location::text, ''), a.metadata::text)::attempt_order
$$;


-- Roll-ups.

CREATE TABLE voucher_hourly (
  voucher_id       text COLLATE "C" NOT NULL,
  hour             timestamptz NOT NULL,
  scans            bigint NOT NULL DEFAULT 0,
  customer_scans   bigint NOT NULL DEFAULT 0,
  business_scans   bigint NOT NULL DEFAULT 0,
  camera_scans     bigint NOT NULL DEFAULT 0,
  gallery_scans    bigint NOT NULL DEFAULT 0,
  link_scans       bigint NOT NULL DEFAULT 0,
  share_scans      bigint NOT NULL DEFAULT 0,
  anonymous_scans  bigint NOT NULL DEFAULT 0,
  PRIMARY KEY (voucher_id, hour),
  CONSTRAINT counts_not_negative CHECK (least(customer_scans, business_scans, camera_scans, gallery_scans, link_scans,
                                              share_scans, anonymous_scans) >= 0),
  CONSTRAINT every_scan_has_a_type CHECK (scans = customer_scans + business_scans),
  CONSTRAINT every_scan_has_a_source CHECK (scans = camera_scans + gallery_scans + link_scans + share_scans)
) WITH (fillfactor = 50);

CREATE INDEX voucher_hourly_by_hour ON voucher_hourly (hour);

-- Who scanned on which day. Distinct users of any days are counted from voucher_returns, without looking at anybody.
CREATE TABLE voucher_scanner_days (
  voucher_id  text COLLATE "C" NOT NULL,
  user_id     text COLLATE "C" NOT NULL,
  day         date NOT NULL,
  first_at    timestamptz NOT NULL,
  PRIMARY KEY (voucher_id, user_id, day)
);

CREATE TABLE voucher_returns (
  voucher_id    text COLLATE "C" NOT NULL,
  day           date NOT NULL,
  previous_day  date NOT NULL,
  users         bigint NOT NULL,
  PRIMARY KEY (voucher_id, day, previous_day),
  CONSTRAINT users_not_negative CHECK (users >= 0),
  CONSTRAINT previous_is_before CHECK (previous_day < day)
) WITH (fillfactor = 50);

COMMENT ON TABLE voucher_returns IS 'how many users scanned on a day and, before it, last on another. '
  'Each distinct user of the days from a to b has exactly one row there whose day is of these and whose previous day is before a';
COMMENT ON COLUMN voucher_returns.previous_day IS '-infinity: never before';

CREATE TABLE voucher_places (
  voucher_id  text COLLATE "C" NOT NULL,
  day         date NOT NULL,
  place       text COLLATE "C" NOT NULL,
  scans       bigint NOT NULL,
  PRIMARY KEY (voucher_id, day, place),
  CONSTRAINT scans_not_negative CHECK (scans >= 0)
) WITH (fillfactor = 50);

-- The same by months, since a year has many days, and each of them many places.
CREATE TABLE voucher_place_months (
  voucher_id  text COLLATE "C" NOT NULL,
  month       date NOT NULL,
  place       text COLLATE "C" NOT NULL,
  scans       bigint NOT NULL,
  PRIMARY KEY (voucher_id, month, place),
  CONSTRAINT scans_not_negative CHECK (scans >= 0),
  CONSTRAINT month_is_its_first_day CHECK (extract(day FROM month) = 1)
) WITH (fillfactor = 50);

CREATE TABLE voucher_daily (
  voucher_id             text COLLATE "C" NOT NULL,
  day                    date NOT NULL,
  impressions            bigint NOT NULL DEFAULT 0,
  claims                 bigint NOT NULL DEFAULT 0,
  timed_claims           bigint NOT NULL DEFAULT 0,
  scan_to_claim_s        numeric(38,6) NOT NULL DEFAULT 0,
  redemptions            bigint NOT NULL DEFAULT 0,
  failed_redemptions     bigint NOT NULL DEFAULT 0,
  timed_redemptions      bigint NOT NULL DEFAULT 0,
  claim_to_redemption_s  numeric(38,6) NOT NULL DEFAULT 0,
  PRIMARY KEY (voucher_id, day),
  CONSTRAINT counts_not_negative CHECK (least(impressions, claims, timed_claims, redemptions, failed_redemptions,
                                              timed_redemptions) >= 0),
  CONSTRAINT times_not_negative CHECK (scan_to_claim_s >= 0 AND claim_to_redemption_s >= 0
                                       AND scan_to_claim_s <> 'NaN' AND claim_to_redemption_s <> 'NaN')
) WITH (fillfactor = 50);

CREATE INDEX voucher_daily_by_day ON voucher_daily (day, voucher_id);

COMMENT ON COLUMN voucher_daily.timed_claims IS 'claims whose customer had scanned the voucher before; scan_to_claim_s is the sum of these times';
COMMENT ON COLUMN voucher_daily.timed_redemptions IS 'of the day of redemption: those that the customer had claimed before';


-- Whoever waits for a voucher sees what he waited for in a fresh statement, and only there.
CREATE FUNCTION refuse_older_snapshot() RETURNS void LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  IF current_setting('transaction_isolation') IN ('repeatable read', 'serializable') THEN
    RAISE feature_not_supported USING
      MESSAGE = 'facts of vouchers are written in READ COMMITTED: a snapshot that is older than their locks misses what met them';
  END IF;
END $$;

-- Make the rows of vouchers where there are none, and hold them, in one order.
CREATE FUNCTION hold_vouchers(ids text[]) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
  PERFORM refuse_older_snapshot();
  INSERT INTO vouchers AS v (id)
  SELECT DISTINCT id COLLATE "C" FROM unnest(ids) AS t(id) WHERE id IS NOT NULL ORDER BY 1
  ON CONFLICT (id) DO UPDATE SET updated_at = v.updated_at WHERE false;  -- locked, and not written
END $$;

COMMENT ON FUNCTION hold_vouchers IS 'to be called before the facts of several ledgers are written in one transaction';


-- Impressions, claims and redemptions, a day at a time. What one row counts for is said once, and is what verifying counts.

CREATE FUNCTION daily_of_impression(i voucher_impressions, sign integer) RETURNS SETOF voucher_daily LANGUAGE sql STABLE
BEGIN ATOMIC
  SELECT i.voucher_id, (i.occurred_at AT TIME ZONE 'UTC')::date, sign::bigint, 0::bigint, 0::bigint, 0::numeric(38,6),
         0::bigint, 0::bigint, 0::bigint, 0::numeric(38,6);
END;

CREATE FUNCTION daily_of_wallet_row(c customer_vouchers, sign integer) RETURNS SETOF voucher_daily LANGUAGE sql STABLE
BEGIN ATOMIC
  SELECT c.voucher_id, (c.claimed_at AT TIME ZONE 'UTC')::date, 0::bigint, sign::bigint,
         CASE WHEN c.first_scanned_at <= c.claimed_at THEN sign ELSE 0 END::bigint,
         CASE WHEN c.first_scanned_at <= c.claimed_at THEN sign * extract(epoch FROM c.claimed_at - c.first_scanned_at)
              ELSE 0 END::numeric(38,6),
         0::bigint, 0::bigint, 0::bigint, 0::numeric(38,6)
  WHERE c.claimed_at IS NOT NULL
  UNION ALL
  SELECT c.voucher_id, (c.redeemed_at AT TIME ZONE 'UTC')::date, 0::bigint, 0::bigint, 0::bigint, 0::numeric(38,6),
         0::bigint, 0::bigint, sign::bigint, (sign * extract(epoch FROM c.redeemed_at - c.claimed_at))::numeric(38,6)
  WHERE c.claimed_at <= c.redeemed_at;
END;

CREATE FUNCTION daily_of_attempt(a redemption_attempts, sign integer) RETURNS SETOF voucher_daily LANGUAGE sql STABLE
BEGIN ATOMIC
  SELECT a.voucher_id, (a.attempted_at AT TIME ZONE 'UTC')::date, 0::bigint, 0::bigint, 0::bigint, 0::numeric(38,6),
         CASE WHEN a.successful THEN sign ELSE 0 END::bigint, CASE WHEN a.successful THEN 0 ELSE sign END::bigint,
         0::bigint, 0::numeric(38,6);
END;

CREATE FUNCTION add_to_voucher_daily(deltas voucher_daily[]) RETURNS void LANGUAGE plpgsql SET search_path FROM CURRENT
SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
  PERFORM hold_vouchers(array_agg(voucher_id)) FROM unnest(deltas);

  INSERT INTO voucher_daily (voucher_id, day) SELECT voucher_id, day FROM unnest(deltas)
  ON CONFLICT (voucher_id, day) DO NOTHING;

  UPDATE voucher_daily AS v
  SET impressions = v.impressions + d.impressions, claims = v.claims + d.claims,
      timed_claims = v.timed_claims + d.timed_claims, scan_to_claim_s = v.scan_to_claim_s + d.scan_to_claim_s,
      redemptions = v.redemptions + d.redemptions, failed_redemptions = v.failed_redemptions + d.failed_redemptions,
      timed_redemptions = v.timed_redemptions + d.timed_redemptions,
      claim_to_redemption_s = v.claim_to_redemption_s + d.claim_to_redemption_s
  FROM unnest(deltas) AS d
  WHERE v.voucher_id = d.voucher_id AND v.day = d.day;

  UPDATE vouchers AS v
  SET impressions = v.impressions + d.impressions, claim_count = v.claim_count + d.claims,
      redemption_count = v.redemption_count + d.redemptions, updated_at = now()
  FROM (
    SELECT voucher_id, sum(impressions) AS impressions, sum(claims) AS claims, sum(redemptions) AS redemptions
    FROM unnest(deltas) GROUP BY voucher_id
  ) AS d
  WHERE v.id = d.voucher_id AND (d.impressions, d.claims, d.redemptions) <> (0, 0, 0);

  DELETE FROM voucher_daily AS v USING unnest(deltas) AS d
  WHERE v.voucher_id = d.voucher_id AND v.day = d.day AND least(d.impressions, d.claims, d.redemptions, d.failed_redemptions,
                                                                d.timed_redemptions) < 0
    AND (v.impressions, v.claims, v.redemptions, v.failed_redemptions, v.timed_redemptions) = (0, 0, 0, 0, 0);
END $$;

-- The trigger of all three ledgers; its argument names the function that says what a row counts for.
CREATE FUNCTION count_voucher_facts() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
  deltas voucher_daily[];
  counted text := format('SELECT d.* FROM %%s AS t, LATERAL %I(ROW(t.*)::%I, %%s) AS d', TG_ARGV[0], TG_ARGV[1]);
BEGIN
  IF current_setting('counterfoil.recounting', true) = 'on' THEN
    RETURN NULL;
  END IF;
  EXECUTE format(
    'SELECT array_agg(ROW(d.*)::voucher_daily) FROM (
       SELECT voucher_id, day, sum(impressions)::bigint AS impressions, sum(claims)::bigint AS claims,
              sum(timed_claims)::bigint, sum(scan_to_claim_s)::numeric(38,6), sum(redemptions)::bigint AS redemptions,
              sum(failed_redemptions)::bigint AS failed, sum(timed_redemptions)::bigint AS timed,
              sum(claim_to_redemption_s)::numeric(38,6)
       FROM (%s) AS signed
       GROUP BY voucher_id, day
       HAVING (sum(impressions), sum(claims), sum(timed_claims), sum(scan_to_claim_s), sum(redemptions),
               sum(failed_redemptions), sum(timed_redemptions), sum(claim_to_redemption_s)) <> (0, 0, 0, 0, 0, 0, 0, 0)
     ) AS d',
    CASE TG_OP
      WHEN 'INSERT' THEN format(counted, 'inserted', 1)
      WHEN 'DELETE' THEN format(counted, 'deleted', -1)
      ELSE format(counted, 'after_change', 1) || ' UNION ALL ' || format(counted, 'before_change', -1)
    END) INTO deltas;
  IF deltas IS NOT NULL THEN
    PERFORM add_to_voucher_daily(deltas);
  END IF;
  RETURN NULL;
END $$;


-- What a customer's wallet says beside the claim. Both sides of each meeting come here while they hold the voucher.

-- Redemptions: the row of a customer says when the earliest successful attempt was, and is there as long as there is one.
CREATE FUNCTION settle_redemptions(customers text[], vouchers text[]) RETURNS void LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT
SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
  PERFORM hold_vouchers(vouchers);

  WITH wanted AS (
    SELECT DISTINCT customer_id COLLATE "C" AS customer_id, voucher_id COLLATE "C" AS voucher_id
    FROM unnest(customers, vouchers) AS t(customer_id, voucher_id) WHERE customer_id IS NOT NULL
  ), settled AS MATERIALIZED (
    SELECT w.customer_id, w.voucher_id,
           (SELECT min(a.attempted_at) FROM redemption_attempts AS a
            WHERE a.voucher_id = w.voucher_id AND a.customer_id = w.customer_id AND a.successful) AS redeemed_at
    FROM wanted AS w
  ), gone AS (
    DELETE FROM customer_vouchers AS c USING settled AS s
    WHERE c.customer_id = s.customer_id AND c.voucher_id = s.voucher_id AND s.redeemed_at IS NULL AND c.claimed_at IS NULL
  ), changed AS (
    UPDATE customer_vouchers AS c
    SET redeemed_at = s.redeemed_at,
        status = CASE WHEN s.redeemed_at IS NOT NULL THEN 'REDEEMED' WHEN c.status = 'REDEEMED' THEN 'CLAIMED' ELSE c.status END
    FROM settled AS s
    WHERE c.customer_id = s.customer_id AND c.voucher_id = s.voucher_id
      AND (s.redeemed_at IS NOT NULL OR c.claimed_at IS NOT NULL)
      AND (c.redeemed_at IS DISTINCT FROM s.redeemed_at OR (s.redeemed_at IS NOT NULL AND c.status <> 'REDEEMED'))
  )
  INSERT INTO customer_vouchers (customer_id, voucher_id, status, claimed_at, redeemed_at, first_scanned_at)
  SELECT s.customer_id, s.voucher_id, 'REDEEMED', NULL, s.redeemed_at,
         (SELECT d.first_at FROM voucher_scanner_days AS d
          WHERE d.voucher_id = s.voucher_id AND d.user_id = s.customer_id ORDER BY d.day LIMIT 1)
  FROM settled AS s
  WHERE s.redeemed_at IS NOT NULL
  ORDER BY s.voucher_id, s.customer_id
  ON CONFLICT (customer_id, voucher_id) DO NOTHING;
END $$;

CREATE FUNCTION settle_redemptions_inserted() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
  PERFORM settle_redemptions(array_agg(customer_id), array_agg(voucher_id))
  FROM inserted WHERE successful AND customer_id IS NOT NULL HAVING count(*) > 0;
  RETURN NULL;
END $$;

CREATE FUNCTION settle_redemptions_changed() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
  PERFORM settle_redemptions(array_agg(customer_id), array_agg(voucher_id))
  FROM (
    SELECT customer_id, voucher_id FROM before_change WHERE successful
    UNION
    SELECT customer_id, voucher_id FROM after_change WHERE successful
  ) AS changed
  WHERE customer_id IS NOT NULL HAVING count(*) > 0;
  RETURN NULL;
END $$;

CREATE FUNCTION settle_redemptions_deleted() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
  PERFORM settle_redemptions(array_agg(customer_id), array_agg(voucher_id))
  FROM deleted WHERE successful AND customer_id IS NOT NULL HAVING count(*) > 0;
  RETURN NULL;
END $$;

-- Scans: the wallet's rows of these users say when they scanned first.
CREATE FUNCTION settle_first_scans(vouchers text[], users text[]) RETURNS void LANGUAGE sql
SECURITY DEFINER SET search_path FROM CURRENT
SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
  UPDATE customer_vouchers AS c
  SET first_scanned_at = s.first_at
  FROM (
    SELECT k.customer_id, k.voucher_id,
           (SELECT d.first_at FROM voucher_scanner_days AS d
            WHERE d.voucher_id = k.voucher_id AND d.user_id = k.customer_id ORDER BY d.day LIMIT 1) AS first_at
    FROM unnest(vouchers, users) AS t(voucher_id, user_id)
    JOIN customer_vouchers AS k ON k.customer_id = t.user_id AND k.voucher_id = t.voucher_id
  ) AS s
  WHERE c.customer_id = s.customer_id AND c.voucher_id = s.voucher_id AND c.first_scanned_at IS DISTINCT FROM s.first_at
$$;

-- Claims: a new row, or one that has become another's, is told what is known of its customer already.
CREATE FUNCTION settle_claims_inserted() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
  PERFORM settle_claims(array_agg(customer_id), array_agg(voucher_id)) FROM inserted HAVING count(*) > 0;
  RETURN NULL;
END $$;

CREATE FUNCTION settle_claims_changed() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
  PERFORM settle_claims(array_agg(customer_id), array_agg(voucher_id))
  FROM (
    SELECT customer_id, voucher_id FROM before_change
    EXCEPT
    SELECT customer_id, voucher_id FROM after_change
    UNION ALL (
      SELECT customer_id, voucher_id FROM after_change
      EXCEPT
      SELECT customer_id, voucher_id FROM before_change)
  ) AS moved
  HAVING count(*) > 0;
  RETURN NULL;
END $$;

CREATE FUNCTION settle_claims_deleted() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
  PERFORM settle_redemptions(array_agg(d.customer_id), array_agg(d.voucher_id))
  FROM deleted AS d WHERE d.redeemed_at IS NOT NULL HAVING count(*) > 0;
  RETURN NULL;
END $$;

CREATE FUNCTION settle_claims(customers text[], vouchers text[]) RETURNS void LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT
SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
  PERFORM hold_vouchers(vouchers);
  PERFORM settle_first_scans(vouchers, customers);
  PERFORM settle_redemptions(array_agg(t.customer_id), array_agg(t.voucher_id))
  FROM unnest(customers, vouchers) AS t(customer_id, voucher_id)
  WHERE EXISTS (SELECT FROM redemption_attempts AS a
                WHERE a.voucher_id = t.voucher_id AND a.customer_id = t.customer_id AND a.successful)
  HAVING count(*) > 0;
END $$;

-- The clock: claims of vouchers that have expired, looked at again once these are held: whoever makes one valid for longer has
-- committed by then, or finds what expired here. A row of a wallet that is being changed now is left for the next time.
CREATE FUNCTION expire_claims(at_most integer) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
  ids text[] := (
    SELECT array_agg(DISTINCT voucher_id) FROM (
      SELECT c.voucher_id FROM customer_vouchers AS c JOIN vouchers AS v ON v.id = c.voucher_id
      WHERE v.expires_at <= now() AND c.status = 'CLAIMED' LIMIT at_most
    ) AS due);
  expired bigint;
BEGIN
  PERFORM hold_vouchers(ids);
  UPDATE customer_vouchers AS c
  SET status = 'EXPIRED'
  FROM (
    SELECT k.customer_id, k.voucher_id FROM customer_vouchers AS k JOIN vouchers AS v ON v.id = k.voucher_id
    WHERE k.voucher_id = ANY (ids) AND v.expires_at <= now() AND k.status = 'CLAIMED' LIMIT at_most
    FOR NO KEY UPDATE OF k SKIP LOCKED
  ) AS due
  WHERE c.customer_id = due.customer_id AND c.voucher_id = due.voucher_id;
  GET DIAGNOSTICS expired = ROW_COUNT;
  RETURN expired;
END $$;

-- A voucher that is valid for longer opens what had expired.
CREATE FUNCTION reopen_claims() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
  UPDATE customer_vouchers SET status = 'CLAIMED' WHERE voucher_id = NEW.id AND status = 'EXPIRED';
  RETURN NULL;
END $$;

CREATE TRIGGER reopen_claims AFTER UPDATE OF expires_at ON vouchers FOR EACH ROW
  WHEN (NEW.expires_at IS DISTINCT FROM OLD.expires_at AND (NEW.expires_at IS NULL OR NEW.expires_at > now()))
  EXECUTE FUNCTION reopen_claims();


-- Scans.

-- Where a scan was, from what its app says: a city, a country, or else a field of one degree of latitude and longitude.
CREATE FUNCTION scan_place(location jsonb) RETURNS text LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
  city text;
  named jsonb;
  country text;
  latitude numeric;
  longitude numeric;
BEGIN
  IF location IS NULL THEN
    RETURN NULL;
  END IF;
  IF jsonb_typeof(location -> 'city') = 'string' THEN
    city := left(btrim(location ->> 'city'), 60);
  END IF;
  named := coalesce(nullif(location -> 'country', 'null'), nullif(location -> 'countryCode', 'null'), location -> 'country_code');
  IF jsonb_typeof(named) = 'string' THEN
    country := left(btrim(named #>> '{}'), 60);
  END IF;
  IF length(country) = 2 THEN
    country := upper(country COLLATE "C");
  END IF;
  IF city <> '' OR country <> '' THEN
    RETURN concat_ws(', ', nullif(city, ''), nullif(country, ''));
  END IF;
  IF jsonb_typeof(coalesce(location -> 'latitude', location -> 'lat')) = 'number'
     AND jsonb_typeof(coalesce(location -> 'longitude', location -> 'lon', location -> 'lng')) = 'number' THEN
    latitude := coalesce(location -> 'latitude', location -> 'lat')::numeric;
    longitude := coalesce(location -> 'longitude', location -> 'lon', location -> 'lng')::numeric;
    IF abs(latitude) <= 90 AND abs(longitude) <= 180 THEN
      RETURN floor(latitude) || ',' || floor(longitude);
    END IF;
  END IF;
  RETURN NULL;
END $$;

CREATE FUNCTION refuse_closed_scan(occurred_at timestamptz) RETURNS void LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
  closed timestamptz := (SELECT closed_before FROM ledger_bounds WHERE ledger = 'voucher_scans');
BEGIN
  IF occurred_at < closed THEN
    RAISE check_violation USING
      CONSTRAINT = 'before_retention', TABLE = 'voucher_scans', SCHEMA = current_schema(),
      MESSAGE = format('the scan of %s is older than the retention: what occurred before %s is closed', occurred_at, closed);
  END IF;
END $$;

-- The road's own way in: every table once, its rows in the order of their keys. Of a transition table the planner knows nothing,
-- and what it decides on an empty ledger it keeps: so it is told to look everything up by its key.
CREATE FUNCTION fold_scans_inserted() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT
SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
  some_earlier boolean;
BEGIN
  PERFORM refuse_older_snapshot();
  PERFORM refuse_closed_scan(min(occurred_at)) FROM inserted;

  INSERT INTO vouchers AS v (id, scan_count)
  SELECT voucher_id, count(*) FROM inserted GROUP BY voucher_id ORDER BY voucher_id
  ON CONFLICT (id) DO UPDATE SET scan_count = v.scan_count + excluded.scan_count, updated_at = excluded.updated_at;

  INSERT INTO voucher_hourly AS h
  SELECT voucher_id, date_bin('1 hour', occurred_at, '2000-01-01Z'), count(*), count(*) FILTER (WHERE scan_type = 'CUSTOMER'),
         count(*) FILTER (WHERE scan_type = 'BUSINESS'), count(*) FILTER (WHERE scan_source = 'CAMERA'),
         count(*) FILTER (WHERE scan_source = 'GALLERY'), count(*) FILTER (WHERE scan_source = 'LINK'),
         count(*) FILTER (WHERE scan_source = 'SHARE'), count(*) FILTER (WHERE user_id IS NULL)
  FROM inserted GROUP BY 1, 2
  ON CONFLICT (voucher_id, hour) DO UPDATE
  SET scans = h.scans + excluded.scans, customer_scans = h.customer_scans + excluded.customer_scans,
      business_scans = h.business_scans + excluded.business_scans, camera_scans = h.camera_scans + excluded.camera_scans,
      gallery_scans = h.gallery_scans + excluded.gallery_scans, link_scans = h.link_scans + excluded.link_scans,
      share_scans = h.share_scans + excluded.share_scans, anonymous_scans = h.anonymous_scans + excluded.anonymous_scans;

  WITH placed AS MATERIALIZED (
    SELECT voucher_id, day, place, count(*) AS scans
    FROM (
      SELECT voucher_id, (occurred_at AT TIME ZONE 'UTC')::date AS day, scan_place(location) AS place
      FROM inserted WHERE location IS NOT NULL OFFSET 0  -- its place is looked for once
    ) AS located
    WHERE place IS NOT NULL GROUP BY 1, 2, 3
  ), by_month AS (
    INSERT INTO voucher_place_months AS p
    SELECT voucher_id, date_trunc('month', day)::date, place, sum(scans) FROM placed GROUP BY 1, 2, 3
    ON CONFLICT (voucher_id, month, place) DO UPDATE SET scans = p.scans + excluded.scans
  )
  INSERT INTO voucher_places AS p SELECT * FROM placed
  ON CONFLICT (voucher_id, day, place) DO UPDATE SET scans = p.scans + excluded.scans;

  -- The vouchers are held by now, so what is not there nobody else adds; ON CONFLICT would lock, and write, what is.
  WITH seen AS MATERIALIZED (
    SELECT s.*, (SELECT d.first_at FROM voucher_scanner_days AS d
                 WHERE d.voucher_id = s.voucher_id AND d.user_id = s.user_id AND d.day = s.day) AS known
    FROM (
      SELECT voucher_id, user_id, (occurred_at AT TIME ZONE 'UTC')::date AS day, min(occurred_at) AS first_at
      FROM inserted WHERE user_id IS NOT NULL GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
    ) AS s
  ), added AS (
    INSERT INTO voucher_scanner_days SELECT voucher_id, user_id, day, first_at FROM seen WHERE known IS NULL
  )
  SELECT bool_or(first_at < known) INTO some_earlier FROM seen;

  IF some_earlier THEN
    UPDATE voucher_scanner_days AS d
    SET first_at = s.first_at
    FROM (
      SELECT voucher_id, user_id, (occurred_at AT TIME ZONE 'UTC')::date AS day, min(occurred_at) AS first_at
      FROM inserted WHERE user_id IS NOT NULL GROUP BY 1, 2, 3
    ) AS s
    WHERE d.voucher_id = s.voucher_id AND d.user_id = s.user_id AND d.day = s.day AND d.first_at > s.first_at;
  END IF;
  RETURN NULL;
END $$;

-- What some scans count for, by everything that is counted of them; `sign` tells how many came or went.
CREATE TYPE scan_delta AS (
  voucher_id   text,
  occurred_at  timestamptz,
  scan_type    text,
  scan_source  text,
  anonymous    boolean,
  place        text,
  sign         bigint
);

CREATE FUNCTION add_scan_deltas(deltas scan_delta[]) RETURNS void LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  UPDATE vouchers AS v
  SET scan_count = v.scan_count + d.scans, updated_at = now()
  FROM (SELECT voucher_id, sum(sign) AS scans FROM unnest(deltas) GROUP BY 1 HAVING sum(sign) <> 0) AS d
  WHERE v.id = d.voucher_id;

  INSERT INTO voucher_hourly (voucher_id, hour)
  SELECT DISTINCT voucher_id, date_bin('1 hour', occurred_at, '2000-01-01Z') FROM unnest(deltas)
  ON CONFLICT (voucher_id, hour) DO NOTHING;
  UPDATE voucher_hourly AS h
  SET scans = h.scans + d.scans, customer_scans = h.customer_scans + d.customer_scans,
      business_scans = h.business_scans + d.business_scans, camera_scans = h.camera_scans + d.camera_scans,
      gallery_scans = h.gallery_scans + d.gallery_scans, link_scans = h.link_scans + d.link_scans,
      share_scans = h.share_scans + d.share_scans, anonymous_scans = h.anonymous_scans + d.anonymous_scans
  FROM (
    SELECT voucher_id, date_bin('1 hour', occurred_at, '2000-01-01Z') AS hour, sum(sign) AS scans,
           coalesce(sum(sign) FILTER (WHERE scan_type = 'CUSTOMER'), 0) AS customer_scans,
           coalesce(sum(sign) FILTER (WHERE scan_type = 'BUSINESS'), 0) AS business_scans,
           coalesce(sum(sign) FILTER (WHERE scan_source = 'CAMERA'), 0) AS camera_scans,
           coalesce(sum(sign) FILTER (WHERE scan_source = 'GALLERY'), 0) AS gallery_scans,
           coalesce(sum(sign) FILTER (WHERE scan_source = 'LINK'), 0) AS link_scans,
           coalesce(sum(sign) FILTER (WHERE scan_source = 'SHARE'), 0) AS share_scans,
           coalesce(sum(sign) FILTER (WHERE anonymous), 0) AS anonymous_scans
    FROM unnest(deltas) GROUP BY 1, 2
  ) AS d
  WHERE h.voucher_id = d.voucher_id AND h.hour = d.hour;
  DELETE FROM voucher_hourly AS h USING unnest(deltas) AS d
  WHERE h.voucher_id = d.voucher_id AND h.hour = date_bin('1 hour', d.occurred_at, '2000-01-01Z') AND h.scans = 0;

  INSERT INTO voucher_places (voucher_id, day, place, scans)
  SELECT DISTINCT voucher_id, (occurred_at AT TIME ZONE 'UTC')::date, place, 0 FROM unnest(deltas) WHERE place IS NOT NULL
  ON CONFLICT (voucher_id, day, place) DO NOTHING;
  UPDATE voucher_places AS p
  SET scans = p.scans + d.scans
  FROM (
    SELECT voucher_id, (occurred_at AT TIME ZONE 'UTC')::date AS day, place, sum(sign) AS scans FROM unnest(deltas) GROUP BY 1, 2, 3
  ) AS d
  WHERE p.voucher_id = d.voucher_id AND p.day = d.day AND p.place = d.place;
  DELETE FROM voucher_places AS p USING unnest(deltas) AS d
  WHERE p.voucher_id = d.voucher_id AND p.day = (d.occurred_at AT TIME ZONE 'UTC')::date AND p.place = d.place AND p.scans = 0;

  INSERT INTO voucher_place_months (voucher_id, month, place, scans)
  SELECT DISTINCT voucher_id, date_trunc('month', occurred_at AT TIME ZONE 'UTC')::date, place, 0
  FROM unnest(deltas) WHERE place IS NOT NULL
  ON CONFLICT (voucher_id, month, place) DO NOTHING;
  UPDATE voucher_place_months AS p
  SET scans = p.scans + d.scans
  FROM (
    SELECT voucher_id, date_trunc('month', occurred_at AT TIME ZONE 'UTC')::date AS month, place, sum(sign) AS scans
    FROM unnest(deltas) GROUP BY 1, 2, 3
  ) AS d
  WHERE p.voucher_id = d.voucher_id AND p.month = d.month AND p.place = d.place;
  DELETE FROM voucher_place_months AS p USING unnest(deltas) AS d
  WHERE p.voucher_id = d.voucher_id AND p.month = date_trunc('month', d.occurred_at AT TIME ZONE 'UTC')::date
    AND p.place = d.place AND p.scans = 0;
END $$;

-- Makes the rows of who scanned on these days what the ledger says now, a day at a time: a scan is found by its time. Two
-- statements, since the triggers of each look at what there is. Days that are closed have nothing behind them but these rows,
-- and are not asked for.
CREATE FUNCTION recount_scanner_days(vouchers text[], users text[], days date[]) RETURNS void LANGUAGE plpgsql
SET search_path FROM CURRENT SET plan_cache_mode = force_custom_plan SET jit = off AS $$
DECLARE
  of_day date;
  counted voucher_scanner_days[];
BEGIN
  FOR of_day IN SELECT DISTINCT day FROM unnest(days) AS day ORDER BY 1 LOOP
    SELECT array_agg(ROW(d.*)::voucher_scanner_days) INTO counted FROM (
      SELECT s.voucher_id, s.user_id, of_day, min(s.occurred_at)
      FROM (SELECT DISTINCT voucher_id, user_id FROM unnest(vouchers, users, days) AS t(voucher_id, user_id, day)
            WHERE day = of_day) AS t
      JOIN voucher_scans AS s ON s.voucher_id = t.voucher_id AND s.user_id = t.user_id
      WHERE s.occurred_at >= of_day::timestamp AT TIME ZONE 'UTC'
        AND s.occurred_at < of_day::timestamp AT TIME ZONE 'UTC' + interval '24 hours'
      GROUP BY 1, 2
    ) AS d;

    DELETE FROM voucher_scanner_days AS d USING unnest(vouchers, users, days) AS t(voucher_id, user_id, day)
    WHERE t.day = of_day AND d.voucher_id = t.voucher_id AND d.user_id = t.user_id AND d.day = of_day
      AND NOT EXISTS (SELECT FROM unnest(counted) AS c WHERE c.voucher_id = d.voucher_id AND c.user_id = d.user_id);

    INSERT INTO voucher_scanner_days AS d SELECT * FROM unnest(counted)
    ON CONFLICT (voucher_id, user_id, day) DO UPDATE SET first_at = excluded.first_at WHERE d.first_at <> excluded.first_at;
  END LOOP;
END $$;

-- In a MERGE into a partitioned table PostgreSQL (18 at least) tells of a row that is updated after another was inserted that it
-- has become that other one. What has not become anything, and still is there, shows it.
CREATE FUNCTION refuse_misreported(ids text[], times timestamptz[]) RETURNS void LANGUAGE plpgsql SET search_path FROM CURRENT
SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
  IF EXISTS (SELECT FROM unnest(ids, times) AS k(scan_id, occurred_at)
             JOIN voucher_scans AS s ON s.scan_id = k.scan_id AND s.occurred_at = k.occurred_at) THEN
    RAISE feature_not_supported USING
      MESSAGE = 'PostgreSQL does not tell what this MERGE has changed',
      HINT = 'write INSERT ... ON CONFLICT DO UPDATE, or a statement for what is new and another for what is changed';
  END IF;
END $$;

CREATE FUNCTION refuse_misreported_clicks() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT
SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
  IF EXISTS (SELECT FROM (SELECT click_id, occurred_at FROM before_change
                          EXCEPT SELECT click_id, occurred_at FROM after_change) AS gone
             JOIN aff_clicks AS c ON c.click_id = gone.click_id AND c.occurred_at = gone.occurred_at) THEN
    RAISE feature_not_supported USING
      MESSAGE = 'PostgreSQL does not tell what this MERGE has changed',
      HINT = 'write INSERT ... ON CONFLICT DO UPDATE, or a statement for what is new and another for what is changed';
  END IF;
  RETURN NULL;
END $$;

CREATE TRIGGER refuse_misreported AFTER UPDATE ON aff_clicks
  REFERENCING OLD TABLE AS before_change NEW TABLE AS after_change
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_misreported_clicks();

CREATE FUNCTION count_scans_changed() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
  deltas scan_delta[];
BEGIN
  PERFORM refuse_closed_scan(min(occurred_at)) FROM after_change;
  PERFORM refuse_misreported(array_agg(scan_id), array_agg(occurred_at)) FROM (
    SELECT scan_id, occurred_at FROM before_change EXCEPT SELECT scan_id, occurred_at FROM after_change
  ) AS gone
  HAVING count(*) > 0;
  SELECT array_agg(ROW(d.*)::scan_delta) INTO deltas FROM (
    SELECT voucher_id, date_bin('1 hour', occurred_at, '2000-01-01Z'), scan_type, scan_source, user_id IS NULL, place, sum(sign)
    FROM (
      SELECT voucher_id, occurred_at, scan_type, scan_source, user_id, scan_place(location) AS place, 1 AS sign FROM after_change
      UNION ALL
      SELECT voucher_id, occurred_at, scan_type, scan_source, user_id, scan_place(location), -1 FROM before_change
    ) AS signed
    GROUP BY 1, 2, 3, 4, 5, 6 HAVING sum(sign) <> 0
  ) AS d;

  PERFORM hold_vouchers(array_agg(voucher_id)) FROM (
    SELECT voucher_id FROM before_change UNION SELECT voucher_id FROM after_change
  ) AS touched;
  PERFORM add_scan_deltas(deltas);
  PERFORM recount_scanner_days(array_agg(voucher_id), array_agg(user_id), array_agg(day))
  FROM (
    SELECT DISTINCT voucher_id, user_id, day
    FROM (
      SELECT voucher_id, user_id, (occurred_at AT TIME ZONE 'UTC')::date AS day, occurred_at, 1 AS sign FROM after_change
      UNION ALL
      SELECT voucher_id, user_id, (occurred_at AT TIME ZONE 'UTC')::date, occurred_at, -1 FROM before_change
    ) AS signed
    WHERE user_id IS NOT NULL GROUP BY voucher_id, user_id, day, occurred_at HAVING sum(sign) <> 0
  ) AS touched;
  RETURN NULL;
END $$;

CREATE FUNCTION count_scans_deleted() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
  PERFORM hold_vouchers(array_agg(voucher_id)) FROM (SELECT DISTINCT voucher_id FROM deleted) AS touched;
  PERFORM add_scan_deltas(array_agg(ROW(d.*)::scan_delta)) FROM (
    SELECT voucher_id, date_bin('1 hour', occurred_at, '2000-01-01Z'), scan_type, scan_source, user_id IS NULL,
           scan_place(location), -count(*)
    FROM deleted GROUP BY 1, 2, 3, 4, 5, 6
  ) AS d;
  PERFORM recount_scanner_days(array_agg(voucher_id), array_agg(user_id), array_agg(day)) FROM (
    SELECT DISTINCT voucher_id, user_id, (occurred_at AT TIME ZONE 'UTC')::date AS day FROM deleted WHERE user_id IS NOT NULL
  ) AS touched;
  RETURN NULL;
END $$;

-- Of a partition the vouchers of its own time, which stands in the trigger's arguments; of the ledger all of them.
CREATE FUNCTION recount_scans_truncated() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT
SET TimeZone = 'UTC' SET DateStyle = 'ISO, YMD' AS $$
DECLARE
  since timestamptz := coalesce(TG_ARGV[0], '-infinity');
  until timestamptz := coalesce(TG_ARGV[1], 'infinity');
BEGIN
  PERFORM recount_voucher_scans(array_agg(DISTINCT voucher_id))
  FROM voucher_hourly WHERE hour >= since AND hour < until HAVING count(*) > 0;
  RETURN NULL;
END $$;

CREATE TRIGGER fold_inserted AFTER INSERT ON voucher_scans REFERENCING NEW TABLE AS inserted
  FOR EACH STATEMENT EXECUTE FUNCTION fold_scans_inserted();
CREATE TRIGGER count_changed AFTER UPDATE ON voucher_scans
  REFERENCING OLD TABLE AS before_change NEW TABLE AS after_change
  FOR EACH STATEMENT EXECUTE FUNCTION count_scans_changed();
CREATE TRIGGER count_deleted AFTER DELETE ON voucher_scans REFERENCING OLD TABLE AS deleted
  FOR EACH STATEMENT EXECUTE FUNCTION count_scans_deleted();
CREATE TRIGGER recount_truncated AFTER TRUNCATE ON voucher_scans
  FOR EACH STATEMENT EXECUTE FUNCTION recount_scans_truncated();


-- Who came back when. A user who scans on a new day is added to that day's row, and the day after it of which he is
-- counted already now has another day before it.

CREATE FUNCTION add_to_returns(deltas voucher_returns[]) RETURNS void LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  INSERT INTO voucher_returns AS r
  SELECT voucher_id, day, previous_day, users FROM unnest(deltas) WHERE users > 0
  ON CONFLICT (voucher_id, day, previous_day) DO UPDATE SET users = r.users + excluded.users;

  IF EXISTS (SELECT FROM unnest(deltas) WHERE users < 0) THEN
    UPDATE voucher_returns AS r SET users = r.users + d.users FROM unnest(deltas) AS d
    WHERE d.users < 0 AND r.voucher_id = d.voucher_id AND r.day = d.day AND r.previous_day = d.previous_day;
    DELETE FROM voucher_returns AS r USING unnest(deltas) AS d
    WHERE d.users < 0 AND r.voucher_id = d.voucher_id AND r.day = d.day AND r.previous_day = d.previous_day AND r.users = 0;
  END IF;
END $$;

CREATE FUNCTION count_returns_inserted() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT
SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
  IF current_setting('counterfoil.recounting', true) = 'on' THEN
    RETURN NULL;
  END IF;

  -- Days that follow one of these now. They are old ones, else they count themselves below; mostly there is no later day at all.
  -- Of a user's days only the neighbours of new ones are looked at, however often he came.
  IF EXISTS (SELECT FROM (SELECT voucher_id, min(day) AS day FROM inserted GROUP BY voucher_id) AS i
             JOIN voucher_returns AS r ON r.voucher_id = i.voucher_id AND r.day > i.day) THEN
    PERFORM add_to_returns(array_agg(ROW(d.*)::voucher_returns)) FROM (
      SELECT voucher_id, day, previous_day, sum(users)::bigint
      FROM (
        SELECT voucher_id, day, is_new, lag(is_new) OVER w AS follows_new, lag(day) OVER w AS previous_now,
               coalesce(max(day) FILTER (WHERE NOT is_new) OVER (w ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), '-infinity')
                 AS previous_before
        FROM (
          SELECT i.voucher_id, i.user_id, near.day, bool_or(near.is_new) AS is_new
          FROM inserted AS i, LATERAL (
            SELECT i.day, true
            UNION ALL (
              SELECT d.day, false FROM voucher_scanner_days AS d
              WHERE d.voucher_id = i.voucher_id AND d.user_id = i.user_id AND d.day < i.day ORDER BY d.day DESC LIMIT 1)
            UNION ALL (
              SELECT d.day, false FROM voucher_scanner_days AS d
              WHERE d.voucher_id = i.voucher_id AND d.user_id = i.user_id AND d.day > i.day ORDER BY d.day LIMIT 1)
          ) AS near(day, is_new)
          GROUP BY 1, 2, 3
        ) AS days
        WINDOW w AS (PARTITION BY voucher_id, user_id ORDER BY day)
      ) AS seen,
      LATERAL (VALUES (previous_now, 1), (previous_before, -1)) AS moved(previous_day, users)
      WHERE NOT is_new AND follows_new
      GROUP BY 1, 2, 3 HAVING sum(users) <> 0
    ) AS d
    HAVING count(*) > 0;
  END IF;

  PERFORM add_to_returns(array_agg(ROW(d.*)::voucher_returns)) FROM (
    SELECT i.voucher_id, i.day, coalesce(before.day, '-infinity'), count(*)
    FROM inserted AS i
    LEFT JOIN LATERAL (
      SELECT d.day FROM voucher_scanner_days AS d
      WHERE d.voucher_id = i.voucher_id AND d.user_id = i.user_id AND d.day < i.day ORDER BY d.day DESC LIMIT 1
    ) AS before ON true
    GROUP BY 1, 2, 3
  ) AS d
  HAVING count(*) > 0;

  PERFORM settle_first_scans(array_agg(c.voucher_id), array_agg(c.customer_id))
  FROM inserted AS i
  JOIN customer_vouchers AS c ON c.customer_id = i.user_id AND c.voucher_id = i.voucher_id
  WHERE c.first_scanned_at IS NULL OR c.first_scanned_at > i.first_at
  HAVING count(*) > 0;
  RETURN NULL;
END $$;

CREATE FUNCTION count_returns_deleted() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
  IF current_setting('counterfoil.recounting', true) = 'on' THEN
    RETURN NULL;
  END IF;
  PERFORM add_to_returns(array_agg(ROW(d.*)::voucher_returns)) FROM (
    SELECT voucher_id, day, previous_day, sum(users)::bigint
    FROM (
      SELECT voucher_id, day, is_gone, lag(day, 1, '-infinity') OVER w AS previous_before,
             coalesce(max(day) FILTER (WHERE NOT is_gone) OVER (w ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), '-infinity')
               AS previous_now
      FROM (
        SELECT d.voucher_id, d.user_id, d.day, false AS is_gone
        FROM (SELECT DISTINCT voucher_id, user_id FROM deleted) AS u
        JOIN voucher_scanner_days AS d ON d.voucher_id = u.voucher_id AND d.user_id = u.user_id
        UNION ALL
        SELECT voucher_id, user_id, day, true FROM deleted
      ) AS days
      WINDOW w AS (PARTITION BY voucher_id, user_id ORDER BY day)
    ) AS seen,
    LATERAL (SELECT previous_before, -1 UNION ALL SELECT previous_now, 1 WHERE NOT is_gone) AS moved(previous_day, users)
    GROUP BY 1, 2, 3 HAVING sum(users) <> 0
  ) AS d
  HAVING count(*) > 0;

  PERFORM settle_first_scans(array_agg(voucher_id), array_agg(user_id))
  FROM (SELECT DISTINCT voucher_id, user_id FROM deleted) AS touched HAVING count(*) > 0;
  RETURN NULL;
END $$;

CREATE FUNCTION settle_earlier_scans() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
  IF current_setting('counterfoil.recounting', true) = 'on' THEN
    RETURN NULL;
  END IF;
  PERFORM settle_first_scans(array_agg(voucher_id), array_agg(user_id))
  FROM (SELECT DISTINCT voucher_id, user_id FROM after_change) AS touched HAVING count(*) > 0;
  RETURN NULL;
END $$;

CREATE TRIGGER count_inserted AFTER INSERT ON voucher_scanner_days REFERENCING NEW TABLE AS inserted
  FOR EACH STATEMENT EXECUTE FUNCTION count_returns_inserted();
CREATE TRIGGER count_deleted AFTER DELETE ON voucher_scanner_days REFERENCING OLD TABLE AS deleted
  FOR EACH STATEMENT EXECUTE FUNCTION count_returns_deleted();
CREATE TRIGGER settle_changed AFTER UPDATE ON voucher_scanner_days REFERENCING NEW TABLE AS after_change
  FOR EACH STATEMENT EXECUTE FUNCTION settle_earlier_scans();


-- What every roll-up must say, counted from the ledgers: what recounting writes and verifying compares with.

CREATE VIEW voucher_hourly_counted AS
SELECT voucher_id, hour, sum(scans)::bigint AS scans, sum(customer_scans)::bigint AS customer_scans,
       sum(business_scans)::bigint AS business_scans, sum(camera_scans)::bigint AS camera_scans,
       sum(gallery_scans)::bigint AS gallery_scans, sum(link_scans)::bigint AS link_scans,
       sum(share_scans)::bigint AS share_scans, sum(anonymous_scans)::bigint AS anonymous_scans
FROM (
  SELECT voucher_id, date_bin('1 hour', occurred_at, '2000-01-01Z') AS hour, count(*) AS scans,
         count(*) FILTER (WHERE scan_type = 'CUSTOMER') AS customer_scans,
         count(*) FILTER (WHERE scan_type = 'BUSINESS') AS business_scans,
         count(*) FILTER (WHERE scan_source = 'CAMERA') AS camera_scans,
         count(*) FILTER (WHERE scan_source = 'GALLERY') AS gallery_scans,
         count(*) FILTER (WHERE scan_source = 'LINK') AS link_scans,
         count(*) FILTER (WHERE scan_source = 'SHARE') AS share_scans,
         count(*) FILTER (WHERE user_id IS NULL) AS anonymous_scans
  FROM voucher_scans GROUP BY 1, 2
  UNION ALL
  SELECT c.key, h.*
  FROM ledger_closings AS c, jsonb_to_recordset(c.sums -> 'hours')
    AS h(hour timestamptz, scans bigint, customer_scans bigint, business_scans bigint, camera_scans bigint,
         gallery_scans bigint, link_scans bigint, share_scans bigint, anonymous_scans bigint)
  WHERE c.ledger = 'voucher_scans'
) AS counted
GROUP BY voucher_id, hour;

CREATE VIEW voucher_places_counted AS
SELECT voucher_id, day, place, sum(scans)::bigint AS scans
FROM (
  SELECT voucher_id, (occurred_at AT TIME ZONE 'UTC')::date AS day, scan_place(location) AS place, count(*) AS scans
  FROM voucher_scans WHERE location IS NOT NULL GROUP BY 1, 2, 3
  UNION ALL
  SELECT c.key, c.day, p.place, p.scans
  FROM ledger_closings AS c, jsonb_to_recordset(c.sums -> 'places') AS p(place text, scans bigint)
  WHERE c.ledger = 'voucher_scans'
) AS counted
WHERE place IS NOT NULL
GROUP BY voucher_id, day, place;

CREATE VIEW voucher_place_months_counted AS
SELECT voucher_id, date_trunc('month', day)::date AS month, place, sum(scans)::bigint AS scans
FROM voucher_places_counted GROUP BY 1, 2, 3;

-- Of days that are closed the rows themselves are what is kept.
CREATE VIEW voucher_scanner_days_counted AS
SELECT voucher_id, user_id, (occurred_at AT TIME ZONE 'UTC')::date AS day, min(occurred_at) AS first_at
FROM voucher_scans WHERE user_id IS NOT NULL GROUP BY 1, 2, 3
UNION ALL
SELECT d.voucher_id, d.user_id, d.day, d.first_at FROM voucher_scanner_days AS d
WHERE d.day < (SELECT (closed_before AT TIME ZONE 'UTC')::date FROM ledger_bounds WHERE ledger = 'voucher_scans');

CREATE VIEW voucher_returns_counted AS
SELECT voucher_id, day, previous_day, count(*) AS users
FROM (
  SELECT voucher_id, day, lag(day, 1, '-infinity') OVER (PARTITION BY voucher_id, user_id ORDER BY day) AS previous_day
  FROM voucher_scanner_days
) AS days
GROUP BY voucher_id, day, previous_day;

CREATE VIEW voucher_daily_counted AS
SELECT voucher_id, day, sum(impressions)::bigint AS impressions, sum(claims)::bigint AS claims,
       sum(timed_claims)::bigint AS timed_claims, sum(scan_to_claim_s) AS scan_to_claim_s,
       sum(redemptions)::bigint AS redemptions, sum(failed_redemptions)::bigint AS failed_redemptions,
       sum(timed_redemptions)::bigint AS timed_redemptions, sum(claim_to_redemption_s) AS claim_to_redemption_s
FROM (
  SELECT d.* FROM voucher_impressions AS i, LATERAL daily_of_impression(i, 1) AS d
  UNION ALL
  SELECT d.* FROM customer_vouchers AS c, LATERAL daily_of_wallet_row(c, 1) AS d
  UNION ALL
  SELECT d.* FROM redemption_attempts AS a, LATERAL daily_of_attempt(a, 1) AS d
) AS counted
GROUP BY voucher_id, day;

-- What is derived of a wallet's row: a redemption that no attempt tells of was written by hand, and stands.
CREATE VIEW customer_vouchers_counted AS
SELECT coalesce(c.customer_id, r.customer_id) AS customer_id, coalesce(c.voucher_id, r.voucher_id) AS voucher_id,
       coalesce(r.redeemed_at, c.redeemed_at) AS redeemed_at, s.first_at AS first_scanned_at
FROM customer_vouchers AS c
FULL JOIN (
  SELECT customer_id, voucher_id, min(attempted_at) AS redeemed_at
  FROM redemption_attempts WHERE successful AND customer_id IS NOT NULL GROUP BY 1, 2
) AS r ON r.customer_id = c.customer_id AND r.voucher_id = c.voucher_id
LEFT JOIN LATERAL (
  SELECT d.first_at FROM voucher_scanner_days AS d
  WHERE d.voucher_id = coalesce(c.voucher_id, r.voucher_id) AND d.user_id = coalesce(c.customer_id, r.customer_id)
  ORDER BY d.day LIMIT 1
) AS s ON true;

CREATE VIEW voucher_counts AS
SELECT voucher_id AS id, sum(scans)::bigint AS scan_count, sum(claims)::bigint AS claim_count,
       sum(redemptions)::bigint AS redemption_count, sum(impressions)::bigint AS impressions
FROM (
  SELECT voucher_id, scans, 0 AS claims, 0 AS redemptions, 0 AS impressions FROM voucher_hourly_counted
  UNION ALL
  SELECT voucher_id, 0, claims, redemptions, impressions FROM voucher_daily_counted
) AS counted
GROUP BY voucher_id;


-- Recounting: vouchers are held, and in fresh statements their rows become what the views say. Meanwhile no trigger adds to
-- what is being recounted, and may be wrong.

CREATE FUNCTION recount_voucher_scans(ids text[]) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT
SET plan_cache_mode = force_custom_plan AS $$
BEGIN
  PERFORM hold_vouchers(ids);

  DELETE FROM voucher_hourly WHERE voucher_id = ANY (ids);
  INSERT INTO voucher_hourly SELECT * FROM voucher_hourly_counted WHERE voucher_id = ANY (ids);
  DELETE FROM voucher_places WHERE voucher_id = ANY (ids);
  INSERT INTO voucher_places SELECT * FROM voucher_places_counted WHERE voucher_id = ANY (ids);
  DELETE FROM voucher_place_months WHERE voucher_id = ANY (ids);
  INSERT INTO voucher_place_months
  SELECT voucher_id, date_trunc('month', day)::date, place, sum(scans) FROM voucher_places WHERE voucher_id = ANY (ids) GROUP BY 1, 2, 3;

  PERFORM set_config('counterfoil.recounting', 'on', true);
  DELETE FROM voucher_scanner_days AS d
  USING (
    SELECT voucher_id, user_id, day FROM voucher_scanner_days WHERE voucher_id = ANY (ids)
    EXCEPT
    SELECT voucher_id, user_id, day FROM voucher_scanner_days_counted WHERE voucher_id = ANY (ids)
  ) AS gone
  WHERE d.voucher_id = gone.voucher_id AND d.user_id = gone.user_id AND d.day = gone.day;
  INSERT INTO voucher_scanner_days AS d SELECT * FROM voucher_scanner_days_counted WHERE voucher_id = ANY (ids)
  ON CONFLICT (voucher_id, user_id, day) DO UPDATE SET first_at = excluded.first_at WHERE d.first_at <> excluded.first_at;

  PERFORM set_config('counterfoil.recounting', '', true);
  DELETE FROM voucher_returns WHERE voucher_id = ANY (ids);
  INSERT INTO voucher_returns SELECT * FROM voucher_returns_counted WHERE voucher_id = ANY (ids);
  PERFORM settle_first_scans(array_agg(voucher_id), array_agg(customer_id)) FROM customer_vouchers WHERE voucher_id = ANY (ids);

  UPDATE vouchers AS v SET scan_count = coalesce(h.scans, 0), updated_at = now()
  FROM unnest(ids) AS t(id)
  LEFT JOIN (SELECT voucher_id, sum(scans) AS scans FROM voucher_hourly WHERE voucher_id = ANY (ids) GROUP BY 1) AS h
    ON h.voucher_id = t.id
  WHERE v.id = t.id;
END $$;

CREATE FUNCTION recount_voucher_daily(ids text[]) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT
SET plan_cache_mode = force_custom_plan AS $$
BEGIN
  PERFORM hold_vouchers(ids);
  PERFORM set_config('counterfoil.recounting', 'on', true);
  PERFORM settle_redemptions(array_agg(customer_id), array_agg(voucher_id))
  FROM redemption_attempts WHERE voucher_id = ANY (ids) AND successful AND customer_id IS NOT NULL;
  PERFORM set_config('counterfoil.recounting', '', true);

  DELETE FROM voucher_daily WHERE voucher_id = ANY (ids);
  INSERT INTO voucher_daily SELECT * FROM voucher_daily_counted WHERE voucher_id = ANY (ids);
  UPDATE vouchers AS v
  SET claim_count = coalesce(d.claims, 0), redemption_count = coalesce(d.redemptions, 0),
      impressions = coalesce(d.impressions, 0), updated_at = now()
  FROM unnest(ids) AS t(id)
  LEFT JOIN (
    SELECT voucher_id, sum(claims) AS claims, sum(redemptions) AS redemptions, sum(impressions) AS impressions
    FROM voucher_daily WHERE voucher_id = ANY (ids) GROUP BY 1
  ) AS d ON d.voucher_id = t.id
  WHERE v.id = t.id;
END $$;

-- The daily part first: what the first scans change in it is added to what is right by then.
CREATE FUNCTION recount_vouchers(ids text[]) RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT AS $$
  SELECT recount_voucher_daily(ids);
  SELECT recount_voucher_scans(ids);
$$;

-- A wallet whose redemptions were truncated says so too: those of its rows that an attempt had told of are not known by now.
CREATE FUNCTION recount_vouchers_truncated() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
  IF TG_TABLE_NAME = 'redemption_attempts' THEN
    PERFORM settle_redemptions(array_agg(customer_id), array_agg(voucher_id)) FROM customer_vouchers WHERE redeemed_at IS NOT NULL;
  END IF;
  PERFORM recount_voucher_daily(array_agg(DISTINCT voucher_id)) FROM voucher_daily HAVING count(*) > 0;
  RETURN NULL;
END $$;

DO $$
DECLARE
  ledger record;
BEGIN
  FOR ledger IN VALUES ('voucher_impressions', 'daily_of_impression'), ('customer_vouchers', 'daily_of_wallet_row'),
                       ('redemption_attempts', 'daily_of_attempt')
  LOOP
    EXECUTE format('CREATE TRIGGER count_inserted AFTER INSERT ON %I REFERENCING NEW TABLE AS inserted
                    FOR EACH STATEMENT EXECUTE FUNCTION count_voucher_facts(%L, %L)', ledger.column1, ledger.column2, ledger.column1);
    EXECUTE format('CREATE TRIGGER count_changed AFTER UPDATE ON %I
                    REFERENCING OLD TABLE AS before_change NEW TABLE AS after_change
                    FOR EACH STATEMENT EXECUTE FUNCTION count_voucher_facts(%L, %L)', ledger.column1, ledger.column2, ledger.column1);
    EXECUTE format('CREATE TRIGGER count_deleted AFTER DELETE ON %I REFERENCING OLD TABLE AS deleted
                    FOR EACH STATEMENT EXECUTE FUNCTION count_voucher_facts(%L, %L)', ledger.column1, ledger.column2, ledger.column1);
    EXECUTE format('CREATE TRIGGER recount_truncated AFTER TRUNCATE ON %I
                    FOR EACH STATEMENT EXECUTE FUNCTION recount_vouchers_truncated()', ledger.column1);
  END LOOP;
END $$;

CREATE TRIGGER settle_inserted AFTER INSERT ON customer_vouchers REFERENCING NEW TABLE AS inserted
  FOR EACH STATEMENT EXECUTE FUNCTION settle_claims_inserted();
CREATE TRIGGER settle_changed AFTER UPDATE ON customer_vouchers
  REFERENCING OLD TABLE AS before_change NEW TABLE AS after_change
  FOR EACH STATEMENT EXECUTE FUNCTION settle_claims_changed();
CREATE TRIGGER settle_deleted AFTER DELETE ON customer_vouchers REFERENCING OLD TABLE AS deleted
  FOR EACH STATEMENT EXECUTE FUNCTION settle_claims_deleted();

CREATE TRIGGER settle_inserted AFTER INSERT ON redemption_attempts REFERENCING NEW TABLE AS inserted
  FOR EACH STATEMENT EXECUTE FUNCTION settle_redemptions_inserted();
CREATE TRIGGER settle_changed AFTER UPDATE ON redemption_attempts
  REFERENCING OLD TABLE AS before_change NEW TABLE AS after_change
  FOR EACH STATEMENT EXECUTE FUNCTION settle_redemptions_changed();
CREATE TRIGGER settle_deleted AFTER DELETE ON redemption_attempts REFERENCING OLD TABLE AS deleted
  FOR EACH STATEMENT EXECUTE FUNCTION settle_redemptions_deleted();


-- Partitions, for any ledger that is partitioned by time: which of its triggers a partition has of its own.

CREATE TABLE partitioned_ledgers (
  ledger     text COLLATE "C" PRIMARY KEY,
  inserted   text NOT NULL,
  changed    text NOT NULL,
  deleted    text NOT NULL,
  truncated  text NOT NULL
);

COMMENT ON TABLE partitioned_ledgers IS 'ledgers by month, with the trigger functions that each partition has, since a statement on one skips its ledger''s';

INSERT INTO partitioned_ledgers
VALUES ('voucher_scans', 'fold_scans_inserted', 'count_scans_changed', 'count_scans_deleted', 'recount_scans_truncated');

CREATE FUNCTION guard_partition(of_ledger text, partition text, since timestamptz, until timestamptz) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT
SET TimeZone = 'UTC' SET DateStyle = 'ISO, YMD' AS $$
DECLARE
  triggers partitioned_ledgers := (SELECT l FROM partitioned_ledgers AS l WHERE ledger = of_ledger);
BEGIN
  EXECUTE format('CREATE TRIGGER fold_inserted AFTER INSERT ON %I REFERENCING NEW TABLE AS inserted
                  FOR EACH STATEMENT EXECUTE FUNCTION %I()', partition, triggers.inserted);
  EXECUTE format('CREATE TRIGGER count_changed AFTER UPDATE ON %I
                  REFERENCING OLD TABLE AS before_change NEW TABLE AS after_change
                  FOR EACH STATEMENT EXECUTE FUNCTION %I()', partition, triggers.changed);
  EXECUTE format('CREATE TRIGGER count_deleted AFTER DELETE ON %I REFERENCING OLD TABLE AS deleted
                  FOR EACH STATEMENT EXECUTE FUNCTION %I()', partition, triggers.deleted);
  EXECUTE format('CREATE TRIGGER recount_truncated AFTER TRUNCATE ON %I
                  FOR EACH STATEMENT EXECUTE FUNCTION %I(%L, %L)', partition, triggers.truncated, since, until);
END $$;

-- Makes a month's partition where there is none, and moves what the default partition holds of it: nothing is recounted,
-- since nothing changes. The ledger is locked whole: a writer that finds its way while a partition is attached would be
-- refused by the default one's constraint.
CREATE FUNCTION make_partition(of_ledger text, month date) RETURNS text LANGUAGE plpgsql SET search_path FROM CURRENT
SET TimeZone = 'UTC' SET DateStyle = 'ISO, YMD' AS $$
DECLARE
  partition text := of_ledger || '_' || to_char(month, 'YYYY_MM');
  rest text := of_ledger || '_default';
  since timestamptz := month::timestamp AT TIME ZONE 'UTC';
  until timestamptz := (month + interval '1 month')::timestamp AT TIME ZONE 'UTC';
  columns text := (SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
                   WHERE attrelid = of_ledger::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = '');
BEGIN
  IF to_regclass(format('%I.%I', current_schema(), partition)) IS NOT NULL
     OR since < (SELECT closed_before FROM ledger_bounds WHERE ledger = of_ledger) THEN
    RETURN NULL;
  END IF;

  EXECUTE format('LOCK TABLE %I IN ACCESS EXCLUSIVE MODE', of_ledger);
  EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', partition, of_ledger);
  EXECUTE format('INSERT INTO %I (%s) SELECT %s FROM %I WHERE occurred_at >= $1 AND occurred_at < $2',
                 partition, columns, columns, rest) USING since, until;
  EXECUTE format('ALTER TABLE %I DISABLE TRIGGER USER', rest);
  EXECUTE format('DELETE FROM %I WHERE occurred_at >= $1 AND occurred_at < $2', rest) USING since, until;
  EXECUTE format('ALTER TABLE %I ENABLE TRIGGER USER', rest);
  EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', of_ledger, partition, since, until);
  PERFORM guard_partition(of_ledger, partition, since, until);
  RETURN partition;
END $$;

CREATE FUNCTION make_partitions(of_ledger text, months_ahead integer) RETURNS SETOF text LANGUAGE plpgsql STRICT SECURITY DEFINER
SET search_path FROM CURRENT SET lock_timeout = '3s' AS $$
DECLARE
  this_month timestamp := date_trunc('month', now() AT TIME ZONE 'UTC');
BEGIN
  IF months_ahead NOT BETWEEN 0 AND 120 THEN
    RAISE invalid_parameter_value USING MESSAGE = 'months_ahead takes 0 to 120';
  ELSIF NOT EXISTS (SELECT FROM partitioned_ledgers WHERE ledger = of_ledger) THEN
    RAISE invalid_parameter_value USING MESSAGE = format('%s is no partitioned ledger', of_ledger);
  END IF;
  PERFORM pg_advisory_xact_lock(3087, 4);
  RETURN QUERY
    SELECT made
    FROM generate_series(this_month, this_month + make_interval(months => months_ahead), interval '1 month') AS month,
         LATERAL (SELECT make_partition(of_ledger, month::date) AS made) AS partition
    WHERE made IS NOT NULL;
END $$;

COMMENT ON FUNCTION make_partitions IS 'makes a ledger''s partitions of this month and so many ahead; answers those that were missing';

-- A closing keeps what its snapshot sees, and drops what is there: both must be the same, of the clicks' ledger too.
CREATE FUNCTION refuse_older_bounds() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  PERFORM refuse_older_snapshot();
  RETURN NULL;
END $$;

CREATE TRIGGER refuse_older_snapshot BEFORE INSERT OR UPDATE ON ledger_bounds
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_older_bounds();

-- Drops what of a ledger ends before a bound, which it sets; its sums have been kept by whoever calls this.
CREATE FUNCTION drop_partitions(of_ledger text, bound timestamptz) RETURNS SETOF text LANGUAGE plpgsql SET search_path FROM CURRENT
SET TimeZone = 'UTC' SET DateStyle = 'ISO, YMD' AS $$
DECLARE
  partition text;
BEGIN
  INSERT INTO ledger_bounds (ledger, closed_before) VALUES (of_ledger, bound)
  ON CONFLICT (ledger) DO UPDATE SET closed_before = excluded.closed_before;
  FOR partition IN
    SELECT relname FROM pg_inherits JOIN pg_class AS c ON c.oid = inhrelid
    WHERE inhparent = of_ledger::regclass
      AND substring(pg_get_expr(relpartbound, c.oid) FROM 'TO \(''([^'']*)''\)')::timestamptz <= bound
    ORDER BY relname
  LOOP
    EXECUTE format('DROP TABLE %I', partition);
    RETURN NEXT partition;
  END LOOP;
  EXECUTE format('ALTER TABLE %I DISABLE TRIGGER USER', of_ledger || '_default');
  EXECUTE format('DELETE FROM %I WHERE occurred_at < $1', of_ledger || '_default') USING bound;
  EXECUTE format('ALTER TABLE %I ENABLE TRIGGER USER', of_ledger || '_default');
END $$;

-- Closes the months that end before a day: what was counted of their scans is kept, their partitions are dropped. Who scanned
-- on which day is kept as it is, or whoever comes back would be counted as new. That the counts are right is looked at before
-- anything is locked; from there on the ledger's triggers keep them so.
CREATE FUNCTION close_scan_partitions(before date) RETURNS SETOF text LANGUAGE plpgsql STRICT SECURITY DEFINER
SET search_path FROM CURRENT SET lock_timeout = '3s' AS $$
DECLARE
  next_day date := date_trunc('month', before::timestamp);
  bound timestamptz := next_day::timestamp AT TIME ZONE 'UTC';
  closed timestamptz;
BEGIN
  IF before > (now() AT TIME ZONE 'UTC')::date THEN
    RAISE invalid_parameter_value USING MESSAGE = 'only what has passed can be closed';
  END IF;
  PERFORM pg_advisory_xact_lock(3087, 4);
  closed := (SELECT closed_before FROM ledger_bounds WHERE ledger = 'voucher_scans');
  IF closed >= bound THEN
    RETURN;
  END IF;

  IF EXISTS (SELECT FROM (SELECT * FROM voucher_hourly WHERE hour < bound) AS h
             FULL JOIN (SELECT * FROM voucher_hourly_counted WHERE hour < bound) AS c
               ON c.voucher_id = h.voucher_id AND c.hour = h.hour
             WHERE ROW(h.*) IS DISTINCT FROM ROW(c.*))
     OR EXISTS (SELECT FROM (SELECT * FROM voucher_places WHERE day < next_day) AS p
                FULL JOIN (SELECT * FROM voucher_places_counted WHERE day < next_day) AS c
                  ON c.voucher_id = p.voucher_id AND c.day = p.day AND c.place = p.place
                WHERE p.scans IS DISTINCT FROM c.scans)
     OR EXISTS (SELECT FROM (SELECT * FROM voucher_scanner_days WHERE day < next_day) AS d
                FULL JOIN (SELECT * FROM voucher_scanner_days_counted WHERE day < next_day) AS c
                  ON c.voucher_id = d.voucher_id AND c.user_id = d.user_id AND c.day = d.day
                WHERE d.first_at IS DISTINCT FROM c.first_at)
  THEN
    RAISE data_exception USING MESSAGE = format(
      'what is counted of voucher_scans is not what it says of days before %s, which are to be closed', next_day),
      HINT = 'run `counterfoil verify --repair` first';
  END IF;

  LOCK TABLE voucher_scans IN ACCESS EXCLUSIVE MODE;
  INSERT INTO ledger_closings (ledger, key, day, sums, closed_before)
  SELECT 'voucher_scans', h.voucher_id, h.day, jsonb_build_object('hours', h.hours, 'places', coalesce(p.places, '[]')), bound
  FROM (
    SELECT voucher_id, (hour AT TIME ZONE 'UTC')::date AS day, jsonb_agg(to_jsonb(v) - 'voucher_id' ORDER BY hour) AS hours
    FROM voucher_hourly AS v
    WHERE hour < bound AND hour >= coalesce(closed, '-infinity') GROUP BY 1, 2
  ) AS h
  LEFT JOIN (
    SELECT voucher_id, day, jsonb_agg(jsonb_build_object('place', place, 'scans', scans) ORDER BY place) AS places
    FROM voucher_places WHERE day < next_day GROUP BY 1, 2
  ) AS p ON p.voucher_id = h.voucher_id AND p.day = h.day;

  RETURN QUERY SELECT * FROM drop_partitions('voucher_scans', bound);
END $$;

COMMENT ON FUNCTION close_scan_partitions IS 'keeps the counts of the months that end before a day, and drops their scans';

SELECT guard_partition('voucher_scans', 'voucher_scans_default', '-infinity', 'infinity');
SELECT make_partition('voucher_scans', (date_trunc('month', now() AT TIME ZONE 'UTC') - interval '1 month')::date);
SELECT make_partitions('voucher_scans', 3);

-- What runs with its owner's rights is nobody else's to call or to hang on a table: see grants.sql for who may.
DO $$
DECLARE
  definer regprocedure;
BEGIN
  FOR definer IN
    SELECT p.oid FROM pg_proc AS p WHERE p.prosecdef AND p.pronamespace = current_schema()::regnamespace
  LOOP
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', definer);
  END LOOP;
END $$;
