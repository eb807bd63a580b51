-- What the schedule has found when it recounted every counter, and what people and the relay do with dead letters.

CREATE TABLE verifications (
  id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  started_at   timestamptz NOT NULL,
  finished_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
  seconds      double precision NOT NULL,
  checked      jsonb NOT NULL,
  drifted      bigint NOT NULL,
  drifted_in   jsonb NOT NULL DEFAULT '{}',
  drift        jsonb NOT NULL DEFAULT '[]',
  CONSTRAINT seconds_not_negative CHECK (seconds >= 0),
  CONSTRAINT drifted_not_negative CHECK (drifted >= 0),
  CONSTRAINT checked_is_an_object CHECK (jsonb_typeof(checked) = 'object'),
  CONSTRAINT drifted_in_is_an_object CHECK (jsonb_typeof(drifted_in) = 'object'),
  CONSTRAINT drift_is_a_list CHECK (jsonb_typeof(drift) = 'array')
);

CREATE INDEX verifications_by_time ON verifications (started_at);

COMMENT ON TABLE verifications IS 'each time that every counter was recounted from its ledger, and what was wrong';
COMMENT ON COLUMN verifications.started_at IS 'the time of the snapshot in which all was counted';
COMMENT ON COLUMN verifications.checked IS 'table → how many of its rows were compared';
COMMENT ON COLUMN verifications.drifted IS 'how many numbers were wrong';
COMMENT ON COLUMN verifications.drifted_in IS 'table → how many of them';
COMMENT ON COLUMN verifications.drift IS 'the first of them: table, key, counter, stored, counted';

-- Dead letters: who gave one up and why, and the copies that go to `<topic>.dlq`.
ALTER TABLE dead_letters
  ADD COLUMN resolved_by text,
  ADD COLUMN resolved_because text,
  ADD COLUMN copy_due boolean NOT NULL DEFAULT false,
  ADD COLUMN copied_at timestamptz,
  ADD COLUMN copy_error text,
  ADD CONSTRAINT dropped_has_its_reason CHECK (
    resolution IS DISTINCT FROM 'dropped'
    OR coalesce(btrim(resolved_because), '') <> '' AND coalesce(resolved_by, '') <> '' AND resolved_at IS NOT NULL);

-- what waits to be published, in the order in which it was parked
CREATE INDEX dead_letters_to_copy ON dead_letters (id) WHERE copy_due;

-- what was resolved long ago
CREATE INDEX dead_letters_resolved ON dead_letters (resolved_at) WHERE resolved_at IS NOT NULL;

COMMENT ON COLUMN dead_letters.resolution IS 'applied, duplicate (retried, and taken in or known), or dropped by a person';
COMMENT ON COLUMN dead_letters.resolved_by IS 'who dropped it';
COMMENT ON COLUMN dead_letters.resolved_because IS 'why it was dropped';
COMMENT ON COLUMN dead_letters.copy_due IS 'parked while DLQ_TOPICS was on, and not published on its .dlq topic yet';
COMMENT ON COLUMN dead_letters.copied_at IS 'when Kafka acknowledged the copy';
COMMENT ON COLUMN dead_letters.copy_error IS 'why there is no copy, and will be none';

-- Retention: the worker deletes no dead letter itself, and nobody deletes an open one or one whose copy is due.
CREATE FUNCTION forget_dead_letters(days integer, at_most integer) RETURNS bigint LANGUAGE plpgsql STRICT SECURITY DEFINER
SET search_path FROM CURRENT AS $$
DECLARE
  gone bigint;
BEGIN
  IF days < 1 THEN
    RAISE invalid_parameter_value USING MESSAGE = 'resolved dead letters are kept for a day at least';
  END IF;
  DELETE FROM dead_letters WHERE id IN (
    SELECT id FROM dead_letters
    WHERE resolved_at < now() - make_interval(days => days) AND NOT copy_due
    ORDER BY resolved_at LIMIT at_most FOR UPDATE SKIP LOCKED);
  GET DIAGNOSTICS gone = ROW_COUNT;
  RETURN gone;
END $$;

COMMENT ON FUNCTION forget_dead_letters IS 'deletes dead letters that were resolved so many days ago, so many at most; answers how many';

REVOKE ALL ON FUNCTION forget_dead_letters(integer, integer) FROM PUBLIC;
