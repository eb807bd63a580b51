-- What a request with an Idempotency-Key was answered: a repeat gets the same, and does nothing.
CREATE TABLE idempotency_answers (
  idempotency_key  text PRIMARY KEY,
  request          text NOT NULL,
  status           smallint,
  answer           text,
  created_at       timestamptz NOT NULL DEFAULT now()
);

COMMENT ON COLUMN idempotency_answers.request IS 'SHA-256 of the request, so that a key used for another one is noticed';
COMMENT ON COLUMN idempotency_answers.status IS 'never null in a committed row: the key is claimed and answered in one transaction';
