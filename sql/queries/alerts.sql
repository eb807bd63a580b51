-- name: raise_alerts
-- Raise those alerts whose cause was not told within the cooldown; answers the id, cause and subject of each that was.
-- $1 topic, $2 kind, $3 subjects, $4 causes, $5 payloads as JSON, $6 cooldown
SELECT alert_id, cause, subject FROM raise_alerts($1, $2, $3::text[], $4::text[], $5::text[]::jsonb[], $6::interval);

-- name: forget_cooldowns
-- Forget the causes that were told before any cooldown that still runs.
-- $1 the longest cooldown
DELETE FROM alert_cooldowns WHERE raised_at < now() - $1::interval;
