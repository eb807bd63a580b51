-- People who are forgotten: what was stored of each stands under a pseudonym, and what still comes of them is kept under it too.

CREATE TABLE forgotten_people (
  id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  pseudonym     text COLLATE "C" NOT NULL UNIQUE,
  forgotten_at  timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT pseudonym_is_one CHECK (pseudonym ~ '^forgotten:[0-9a-f]{32}$')
);

COMMENT ON TABLE forgotten_people IS 'whose ids are replaced by a pseudonym; the ids themselves are kept nowhere';
COMMENT ON COLUMN forgotten_people.id IS 'grows in the order of commits: the highest is the version that a writer has planned with';
COMMENT ON COLUMN forgotten_people.pseudonym IS 'a keyed hash of the id (HMAC-SHA-256, the key `forgotten` of deployment_keys)';

-- The numbers that forgotten visitors have been given instead of the hash of their address and browser.
CREATE TABLE forgotten_visitors (
  visitor       bigint PRIMARY KEY,
  digest        bytea UNIQUE,
  forgotten_at  timestamptz NOT NULL DEFAULT now()
);

COMMENT ON COLUMN forgotten_visitors.visitor IS 'random';
COMMENT ON COLUMN forgotten_visitors.digest IS 'of the number before, until all clicks have the new one; then nothing leads from the one to the other';

INSERT INTO deployment_keys (name, key)
VALUES ('forgotten', uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));

-- A writer of facts that name people shares this lock until it commits, and looks after it who is forgotten; whoever forgets a
-- person takes it alone, so that by his commit nobody is left who knows less. It is taken before the locks of the ledgers.
CREATE FUNCTION hold_forgotten() RETURNS bigint LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  PERFORM pg_advisory_xact_lock_shared(3087, 5);
  RETURN coalesce((SELECT max(id) FROM forgotten_people), 0);
END $$;

COMMENT ON FUNCTION hold_forgotten IS 'the version of forgotten_people, which stays the latest until the transaction ends';

-- Of two attempts of one identity, time, voucher and business the smaller customer stands. A pseudonym is smaller or larger than
-- the id was, so what was refused before its customer was forgotten, or before that of the one that stands, stays refused.
CREATE FUNCTION stays_refused(a redemption_attempts, standing redemption_attempts) RETURNS boolean LANGUAGE sql STABLE
SET search_path FROM CURRENT AS $$
  SELECT (a.customer_id LIKE 'forgotten:%' OR standing.customer_id LIKE 'forgotten:%') AND EXISTS (
    SELECT FROM refused_voucher_facts AS r
    WHERE r.voucher_id = a.voucher_id AND r.topic = 'redemption' AND r.digest = md5(attempt_content(a)::text))
$$;

-- A replay that puts rows right, or whoever else updates clicks, does not bring back what a forgotten visitor's once told.
CREATE FUNCTION keep_visitor_forgotten() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  IF EXISTS (SELECT FROM forgotten_visitors WHERE visitor = OLD.visitor) THEN
    NEW.visitor := OLD.visitor;
    NEW.is_bot := OLD.is_bot;
    NEW.ip_address := NULL;
    NEW.user_agent := NULL;
    NEW.referrer := NULL;
    NEW.landing_page := NULL;
  END IF;
  RETURN NEW;
END $$;

CREATE TRIGGER keep_visitor_forgotten BEFORE UPDATE ON aff_clicks
  FOR EACH ROW EXECUTE FUNCTION keep_visitor_forgotten();

-- Whoever forgets a person moves the days of the vouchers first, and then all scans of these: that the days are the same is known,
-- and finding it out would be to read all scans of each day.
CREATE OR REPLACE FUNCTION count_scans_changed() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
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
  IF current_setting('counterfoil.days_moved', true) = 'on' THEN
    RETURN NULL;
  END IF;
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
