-- Partners: the shop's users who share links, the programs that the links belong to, and the rates that programs pay.
-- No foreign keys between facts: each may come first.

CREATE TABLE shop_users (
  id                  text COLLATE "C" PRIMARY KEY,
  name                text,
  email               text,
  default_partner_id  text COLLATE "C",
  occurred_at         timestamptz NOT NULL DEFAULT now(),
  source_id           integer,
  source_offset       bigint,
  CONSTRAINT id_not_blank CHECK (id <> ''),
  CONSTRAINT default_partner_id_not_blank CHECK (default_partner_id <> '')
);

CREATE TABLE partners (
  id          text COLLATE "C" PRIMARY KEY,
  name        text,
  email       text,
  created_at  timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT id_not_blank CHECK (id <> '')
);

CREATE TABLE partner_users (
  partner_id  text COLLATE "C" NOT NULL,
  user_id     text COLLATE "C" NOT NULL,
  created_at  timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (partner_id, user_id),
  CONSTRAINT partner_id_not_blank CHECK (partner_id <> ''),
  CONSTRAINT user_id_not_blank CHECK (user_id <> '')
);

CREATE INDEX partner_users_by_user ON partner_users (user_id);

CREATE TABLE programs (
  id                  text COLLATE "C" PRIMARY KEY,
  base_domain         text COLLATE "C" NOT NULL UNIQUE,
  commission_percent  numeric(9,6),
  rate_checked_at     timestamptz,
  created_at          timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT id_not_blank CHECK (id <> ''),
  CONSTRAINT base_domain_not_blank CHECK (base_domain <> ''),
  CONSTRAINT commission_percent_is_a_share CHECK (commission_percent BETWEEN 0 AND 100)
);

COMMENT ON COLUMN programs.commission_percent IS 'the latest of its program_rates; null while only the default is known';
COMMENT ON COLUMN programs.rate_checked_at IS 'when COMMISSION_RATE_URL was last asked';

-- What a program pays, from when on: a conversion is judged by the rate of its own time, or else by the earliest known.
CREATE TABLE program_rates (
  id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  program_id  text COLLATE "C" NOT NULL,
  percent     numeric(9,6) NOT NULL,
  source      text NOT NULL DEFAULT 'manual',
  valid_from  timestamptz NOT NULL DEFAULT clock_timestamp(),
  actor       text NOT NULL DEFAULT current_user,
  CONSTRAINT program_id_not_blank CHECK (program_id <> ''),
  CONSTRAINT percent_is_a_share CHECK (percent BETWEEN 0 AND 100)
);

CREATE INDEX program_rates_by_program ON program_rates (program_id, valid_from, id);

-- The same for conversions of no program, and of programs without a rate of their own.
CREATE TABLE default_rates (
  id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  percent     numeric(9,6) NOT NULL,
  valid_from  timestamptz NOT NULL DEFAULT clock_timestamp(),
  actor       text NOT NULL DEFAULT current_user,
  CONSTRAINT percent_is_a_share CHECK (percent BETWEEN 0 AND 100)
);

CREATE TABLE program_enrollments (
  partner_id  text COLLATE "C" NOT NULL,
  program_id  text COLLATE "C" NOT NULL,
  status      text NOT NULL DEFAULT 'approved',
  origin      text NOT NULL DEFAULT 'manual',
  created_at  timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (partner_id, program_id),
  CONSTRAINT partner_id_not_blank CHECK (partner_id <> ''),
  CONSTRAINT program_id_not_blank CHECK (program_id <> ''),
  CONSTRAINT status_is_known CHECK (status IN ('pending', 'approved', 'rejected')),
  CONSTRAINT origin_is_known CHECK (origin IN ('link', 'manual'))
);

COMMENT ON COLUMN program_enrollments.origin IS 'link: there because a link says so, and gone when none does any more';

CREATE TABLE links (
  id                text COLLATE "C" PRIMARY KEY,
  url               text NOT NULL,
  user_id           text COLLATE "C",
  partner_id        text COLLATE "C",
  named_partner_id  text COLLATE "C",
  program_id        text COLLATE "C",
  pixel_id          text COLLATE "C",
  occurred_at       timestamptz NOT NULL DEFAULT now(),
  source_id         integer,
  source_offset     bigint,
  CONSTRAINT id_not_blank CHECK (id <> ''),
  CONSTRAINT user_id_not_blank CHECK (user_id <> ''),
  CONSTRAINT partner_id_not_blank CHECK (partner_id <> ''),
  CONSTRAINT named_partner_id_not_blank CHECK (named_partner_id <> ''),
  CONSTRAINT program_id_not_blank CHECK (program_id <> ''),
  CONSTRAINT pixel_id_not_blank CHECK (pixel_id <> '')
);

CREATE INDEX links_by_user ON links (user_id);
CREATE INDEX links_by_partner ON links (partner_id, program_id);
CREATE INDEX links_by_pixel ON links (pixel_id, occurred_at, id);

COMMENT ON COLUMN links.named_partner_id IS 'the partner that the event itself names';
COMMENT ON COLUMN links.partner_id IS 'that one, or the default partner of the user; null until it is known';


-- Whatever an order's attribution hangs on meets there. Conversions, being frequent, share this lock; links, users, rates
-- and statuses take it alone, and each looks at the other side after its lock. It is taken after that of the orders.

CREATE FUNCTION lock_attributions_shared() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  PERFORM pg_advisory_xact_lock_shared(3087, 2);
  RETURN NULL;
END $$;

CREATE FUNCTION lock_attributions_exclusive() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  PERFORM pg_advisory_xact_lock(3087, 2);
  RETURN NULL;
END $$;

CREATE TRIGGER lock_before_change BEFORE INSERT OR UPDATE OR DELETE ON shop_users
  FOR EACH STATEMENT EXECUTE FUNCTION lock_attributions_exclusive();
CREATE TRIGGER lock_before_change BEFORE INSERT OR UPDATE OR DELETE ON links
  FOR EACH STATEMENT EXECUTE FUNCTION lock_attributions_exclusive();
CREATE TRIGGER lock_before_change BEFORE INSERT OR UPDATE OR DELETE ON program_rates
  FOR EACH STATEMENT EXECUTE FUNCTION lock_attributions_exclusive();
CREATE TRIGGER lock_before_change BEFORE INSERT OR UPDATE OR DELETE ON default_rates
  FOR EACH STATEMENT EXECUTE FUNCTION lock_attributions_exclusive();
CREATE TRIGGER lock_before_change BEFORE INSERT OR UPDATE OF commission_percent ON programs
  FOR EACH STATEMENT EXECUTE FUNCTION lock_attributions_exclusive();


-- Users: each has a default partner, the one that he has been given or one of his own.

CREATE FUNCTION give_default_partner() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  NEW.default_partner_id := coalesce(
    NEW.default_partner_id, (SELECT min(partner_id) FROM partner_users WHERE user_id = NEW.id), 'pn_' || NEW.id);
  RETURN NEW;
END $$;

CREATE FUNCTION introduce_partners() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  INSERT INTO partners AS p (id, name, email)
  SELECT default_partner_id, name, email FROM changed WHERE default_partner_id = 'pn_' || id ORDER BY 1
  ON CONFLICT (id) DO UPDATE SET name = excluded.name, email = excluded.email
  WHERE (p.name, p.email) IS DISTINCT FROM (excluded.name, excluded.email);

  INSERT INTO partners (id)
  SELECT DISTINCT default_partner_id FROM changed WHERE default_partner_id <> 'pn_' || id ORDER BY 1
  ON CONFLICT (id) DO NOTHING;

  INSERT INTO partner_users (partner_id, user_id)
  SELECT default_partner_id, id FROM changed ORDER BY 1, 2
  ON CONFLICT DO NOTHING;

  UPDATE links AS l SET partner_id = u.default_partner_id
  FROM changed AS u
  WHERE l.user_id = u.id AND l.partner_id IS NULL;
  RETURN NULL;
END $$;

CREATE TRIGGER default_partner BEFORE INSERT OR UPDATE ON shop_users
  FOR EACH ROW EXECUTE FUNCTION give_default_partner();
CREATE TRIGGER introduce_inserted AFTER INSERT ON shop_users REFERENCING NEW TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION introduce_partners();
CREATE TRIGGER introduce_changed AFTER UPDATE ON shop_users REFERENCING NEW TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION introduce_partners();


-- Links: each belongs to the partner that it names, or to its user's; and he is enrolled in its program.

CREATE FUNCTION find_partner_of_link() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  NEW.partner_id := coalesce(
    NEW.partner_id, NEW.named_partner_id, (SELECT default_partner_id FROM shop_users WHERE id = NEW.user_id));
  RETURN NEW;
END $$;

CREATE FUNCTION enroll_partners() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  INSERT INTO program_enrollments (partner_id, program_id, origin)
  SELECT DISTINCT partner_id, program_id, 'link' FROM changed
  WHERE partner_id IS NOT NULL AND program_id IS NOT NULL ORDER BY 1, 2
  ON CONFLICT DO NOTHING;
  RETURN NULL;
END $$;

-- An enrollment for which no link speaks any more was none: a link that came earlier says otherwise.
CREATE FUNCTION withdraw_enrollments() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
  DELETE FROM program_enrollments AS e
  USING no_longer AS l
  WHERE e.partner_id = l.partner_id AND e.program_id = l.program_id AND e.origin = 'link'
    AND NOT EXISTS (SELECT FROM links AS k WHERE k.partner_id = e.partner_id AND k.program_id = e.program_id);
  RETURN NULL;
END $$;

CREATE TRIGGER find_partner BEFORE INSERT OR UPDATE ON links
  FOR EACH ROW EXECUTE FUNCTION find_partner_of_link();
CREATE TRIGGER enroll_inserted AFTER INSERT ON links REFERENCING NEW TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION enroll_partners();
CREATE TRIGGER enroll_changed AFTER UPDATE ON links REFERENCING NEW TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION enroll_partners();
CREATE TRIGGER withdraw_changed AFTER UPDATE ON links REFERENCING OLD TABLE AS no_longer
  FOR EACH STATEMENT EXECUTE FUNCTION withdraw_enrollments();
CREATE TRIGGER withdraw_deleted AFTER DELETE ON links REFERENCING OLD TABLE AS no_longer
  FOR EACH STATEMENT EXECUTE FUNCTION withdraw_enrollments();


-- Rates: a program shows the latest of its rates, and one that is written into it becomes a rate from then on.

CREATE FUNCTION show_latest_rate() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  UPDATE programs AS p SET commission_percent = latest.percent
  FROM (SELECT DISTINCT program_id FROM changed) AS c,
       LATERAL (SELECT percent FROM program_rates AS r WHERE r.program_id = c.program_id
                ORDER BY valid_from DESC, id DESC LIMIT 1) AS latest
  WHERE p.id = c.program_id AND p.commission_percent IS DISTINCT FROM latest.percent;
  RETURN NULL;
END $$;

CREATE FUNCTION keep_rate_history() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
  ids text[] := (
    SELECT array_agg(c.id ORDER BY c.id) FROM changed AS c
    WHERE c.commission_percent <> coalesce((SELECT percent FROM program_rates AS r WHERE r.program_id = c.id
                                            ORDER BY valid_from DESC, id DESC LIMIT 1), -1));
BEGIN
  IF ids IS NOT NULL THEN
    INSERT INTO program_rates (program_id, percent)
    SELECT id, commission_percent FROM programs WHERE id = ANY (ids) ORDER BY id;
  END IF;
  RETURN NULL;
END $$;

-- Keep what the service says of a program, from now on, unless it said the same last: looked at after the lock.
CREATE FUNCTION keep_program_rate(program text, said numeric)
RETURNS bigint LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
  added bigint;
BEGIN
  PERFORM pg_advisory_xact_lock(3087, 2);
  INSERT INTO program_rates (program_id, percent, source)
  SELECT program, said, 'api'
  WHERE said IS DISTINCT FROM (
    SELECT percent FROM program_rates WHERE program_id = program AND source = 'api' ORDER BY valid_from DESC, id DESC LIMIT 1)
  RETURNING id INTO added;
  RETURN added;
END $$;

CREATE TRIGGER show_inserted AFTER INSERT ON program_rates REFERENCING NEW TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION show_latest_rate();
CREATE TRIGGER show_changed AFTER UPDATE ON program_rates REFERENCING NEW TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION show_latest_rate();
CREATE TRIGGER show_deleted AFTER DELETE ON program_rates REFERENCING OLD TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION show_latest_rate();
CREATE TRIGGER history_inserted AFTER INSERT ON programs REFERENCING NEW TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION keep_rate_history();
CREATE TRIGGER history_changed AFTER UPDATE ON programs REFERENCING NEW TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION keep_rate_history();
