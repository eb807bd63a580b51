-- name: hold_forgotten
-- Share the lock of those who write of people; the version of who is forgotten, the latest until the transaction ends.
SELECT hold_forgotten();

-- name: forgotten_version
-- The version of who is forgotten now.
SELECT coalesce(max(id), 0) FROM forgotten_people;

-- name: forgotten_since
-- The pseudonyms of those who were forgotten after a version.
-- $1 version
SELECT pseudonym FROM forgotten_people WHERE id > $1;

-- name: forgotten_key
-- The key that makes pseudonyms of ids.
SELECT key FROM deployment_keys WHERE name = 'forgotten';

-- name: resolve_erased
-- Nobody tries again what was parked without its bytes, or publishes a copy.
UPDATE dead_letters SET resolved_at = now(), resolution = 'erased', copy_due = false
WHERE resolved_at IS NULL AND value IS NULL AND error = 'erased';
