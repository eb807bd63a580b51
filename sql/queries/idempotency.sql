-- name: claim_idempotency_key
-- Take a key before its work begins; no row comes back when it is taken. Waits for a transaction that holds it.
-- $1 key, $2 SHA-256 of the request
INSERT INTO idempotency_answers (idempotency_key, request) VALUES ($1, $2)
ON CONFLICT (idempotency_key) DO NOTHING
RETURNING idempotency_key;

-- name: keep_idempotent_answer
-- Keep what the request of a claimed key was answered.
-- $1 key, $2 HTTP status, $3 body
UPDATE idempotency_answers SET status = $2, answer = $3 WHERE idempotency_key = $1;

-- name: find_idempotent_answer
-- What the request of a key was answered.
-- $1 key
SELECT request, status, answer FROM idempotency_answers WHERE idempotency_key = $1;
