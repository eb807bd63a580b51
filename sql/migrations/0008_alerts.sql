-- Alerts: raised in the transaction that finds their cause, kept for ever, and put into the outbox, from which the relay takes
-- them to Kafka.

CREATE TABLE outbox (
  id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  topic       text COLLATE "C" NOT NULL,
  key         text COLLATE "C" NOT NULL,
  value       jsonb NOT NULL,
  headers     jsonb NOT NULL DEFAULT '{}',
  created_at  timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT topic_not_blank CHECK (topic <> ''),
  CONSTRAINT key_not_blank CHECK (key <> ''),
  CONSTRAINT value_is_an_object CHECK (jsonb_typeof(value) = 'object'),
  CONSTRAINT headers_are_an_object CHECK (jsonb_typeof(headers) = 'object')
);

CREATE INDEX outbox_by_topic ON outbox (topic, id);

COMMENT ON TABLE outbox IS 'what is to be published: a row goes when Kafka has acknowledged its record';
COMMENT ON COLUMN outbox.id IS 'the order of publishing; whoever adds a row holds what its key names, so the rows of a key are committed in it';
COMMENT ON COLUMN outbox.topic IS 'by its default name';

CREATE TABLE alerts (
  alert_id   text COLLATE "C" PRIMARY KEY DEFAULT gen_random_uuid()::text,
  kind       text COLLATE "C" NOT NULL,
  subject    text COLLATE "C" NOT NULL,
  cause      text COLLATE "C" NOT NULL,
  payload    jsonb NOT NULL,
  raised_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
  CONSTRAINT alert_id_not_blank CHECK (alert_id <> ''),
  CONSTRAINT kind_not_blank CHECK (kind <> ''),
  CONSTRAINT subject_not_blank CHECK (subject <> ''),
  CONSTRAINT cause_not_blank CHECK (cause <> ''),
  CONSTRAINT payload_is_an_object CHECK (jsonb_typeof(payload) = 'object')
);

CREATE INDEX alerts_by_time ON alerts (raised_at);
CREATE INDEX alerts_by_subject ON alerts (subject, raised_at);

COMMENT ON COLUMN alerts.subject IS 'the voucher or SKU that it is told of: the key of its record';
COMMENT ON COLUMN alerts.cause IS 'what is not told again within the cooldown';
COMMENT ON COLUMN alerts.payload IS 'the value of its record';

CREATE TABLE alert_cooldowns (
  kind       text COLLATE "C" NOT NULL,
  cause      text COLLATE "C" NOT NULL,
  raised_at  timestamptz NOT NULL,
  PRIMARY KEY (kind, cause)
) WITH (fillfactor = 70);

COMMENT ON TABLE alert_cooldowns IS 'when each cause was last told, for as long as that may matter';

-- Which stretch of time a job has done, so that of any number of workers one does it.
CREATE TABLE job_turns (
  job   text COLLATE "C" PRIMARY KEY,
  turn  timestamptz NOT NULL,
  CONSTRAINT job_not_blank CHECK (job <> '')
);

COMMENT ON COLUMN job_turns.turn IS 'when the stretch began, by the database''s clock';

-- What is usual of a device or an address, of which no roll-up tells, and of the busy ones of each kind.
CREATE TABLE scan_rates (
  kind     text COLLATE "C" NOT NULL,
  subject  text COLLATE "C" NOT NULL,
  hour     timestamptz NOT NULL,
  busiest  double precision NOT NULL,
  PRIMARY KEY (kind, subject, hour),
  CONSTRAINT kind_is_known CHECK (kind IN ('voucher', 'device', 'address')),
  CONSTRAINT busiest_is_a_rate CHECK (busiest >= 0 AND busiest < 'Infinity')
) WITH (fillfactor = 70);

COMMENT ON COLUMN scan_rates.subject IS '''''  in the row of what 19 of 20 of the kind stay below';
COMMENT ON COLUMN scan_rates.busiest IS 'scans per second in the busiest window of the hour';


-- The relay hears of new rows at once. Two schemas of a database have two channels; a schema's name may be too long for one.

CREATE FUNCTION outbox_channel() RETURNS text LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
  SELECT 'counterfoil_outbox_' || oid FROM pg_namespace WHERE nspname = current_schema()
$$;

CREATE FUNCTION announce_outbox() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  IF EXISTS (SELECT FROM inserted) THEN
    PERFORM pg_notify(outbox_channel(), '');
  END IF;
  RETURN NULL;
END $$;

CREATE TRIGGER announce AFTER INSERT ON outbox REFERENCING NEW TABLE AS inserted
FOR EACH STATEMENT EXECUTE FUNCTION announce_outbox();


-- Raise those of some alerts of a kind whose cause was not told within the cooldown; the others leave no trace. To be called
-- by whoever finds the cause, in his transaction. Two that find one cause meet at its row of the cooldowns: the second waits
-- for the first, and finds that it was told. Causes are held in one order; of one cause given twice the first is told.
CREATE FUNCTION raise_alerts(topic text, kind text, subjects text[], causes text[], payloads jsonb[], cooldown interval)
RETURNS SETOF alerts LANGUAGE sql SET search_path FROM CURRENT AS $$
  WITH found AS (
    SELECT DISTINCT ON (cause COLLATE "C") cause COLLATE "C" AS cause, subject, payload, place
    FROM unnest($3, $4, $5) WITH ORDINALITY AS t(subject, cause, payload, place)
    ORDER BY cause COLLATE "C", place
  ), told AS (
    INSERT INTO alert_cooldowns AS c (kind, cause, raised_at)
    SELECT $2, cause, clock_timestamp() FROM found ORDER BY cause
    ON CONFLICT (kind, cause) DO UPDATE SET raised_at = clock_timestamp()
    WHERE c.raised_at <= clock_timestamp() - $6
    RETURNING c.cause, c.raised_at
  ), raised AS (
    INSERT INTO alerts (alert_id, kind, subject, cause, payload, raised_at)
    SELECT alert_id, $2, subject, cause, jsonb_build_object('alert_id', alert_id) || payload, raised_at
    FROM (
      SELECT gen_random_uuid()::text AS alert_id, f.subject, f.cause, f.payload, t.raised_at, f.place
      FROM found AS f JOIN told AS t ON t.cause = f.cause
    ) AS named
    ORDER BY place
    RETURNING *
  ), put AS (
    INSERT INTO outbox (topic, key, value, headers)
    SELECT $1, r.subject, r.payload, jsonb_strip_nulls(jsonb_build_object(
      'content-type', 'application/json', 'ce_specversion', '1.0', 'ce_source', '/counterfoil/alerts',
      'ce_type', $1, 'ce_id', $1 || ':' || r.alert_id, 'ce_time', r.payload ->> 'occurred_at'))
    FROM raised AS r JOIN found AS f ON f.cause = r.cause
    ORDER BY f.place
  )
  SELECT * FROM raised
$$;

COMMENT ON FUNCTION raise_alerts IS 'a payload holds what its topic takes, with occurred_at; the alert_id is added to it';
