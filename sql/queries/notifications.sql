-- name: record_notifications
-- A row for each alert and channel that has none; what is too old by its own time is not to be sent. Answers the rows made.
-- $1 alert ids, $2 topics by default name, $3 subjects, $4 payloads as JSON, $5 raised at, $6 channels, $7 the greatest age
INSERT INTO notifications (alert_id, channel, status, topic, subject, payload, raised_at)
SELECT a.alert_id, c.channel, CASE WHEN a.raised_at < clock_timestamp() - $7::interval THEN 'expired' ELSE 'pending' END,
       a.topic, a.subject, a.payload::jsonb, a.raised_at
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[])
  AS a(alert_id, topic, subject, payload, raised_at)
CROSS JOIN unnest($6::text[]) AS c(channel)
ORDER BY a.alert_id COLLATE "C", c.channel COLLATE "C"
ON CONFLICT (alert_id, channel) DO NOTHING
RETURNING alert_id, channel, status;

-- name: seconds_to_next_message
-- How long until a channel may be told what waits for it, in seconds, negative where it may; null where nothing waits.
-- $1 channel, $2 how long to gather what comes with the first
SELECT extract(epoch FROM greatest(first.due + $2::interval, c.next_message_at, c.held_until) - clock_timestamp())::float8
FROM (
  SELECT coalesce(n.lease_until, n.next_attempt_at) AS due
  FROM notifications AS n
  WHERE n.channel = $1 AND n.status IN ('pending', 'sending')
  ORDER BY coalesce(n.lease_until, n.next_attempt_at)
  LIMIT 1
) AS first
LEFT JOIN notification_channels AS c ON c.channel = $1;

-- name: take_turn
-- Be the one who speaks on a channel: no row where another does, or the channel is to be left alone for now.
-- One without a row of its own has not spoken yet, and may.
-- $1 channel, $2 for how long, at most
INSERT INTO notification_channels AS c (channel, next_message_at) VALUES ($1, clock_timestamp() + $2::interval)
ON CONFLICT (channel) DO UPDATE SET next_message_at = clock_timestamp() + $2::interval
WHERE c.next_message_at <= clock_timestamp() AND c.held_until <= clock_timestamp()
RETURNING c.channel;

-- name: claim_notifications
-- Take what is due on a channel, the oldest first: what waits, and what somebody took whose lease has passed.
-- $1 channel, $2 how long the lease is, $3 how many
WITH due AS (
  SELECT alert_id
  FROM notifications
  WHERE channel = $1 AND status IN ('pending', 'sending') AND coalesce(lease_until, next_attempt_at) <= clock_timestamp()
  ORDER BY coalesce(lease_until, next_attempt_at), alert_id
  LIMIT $3
  FOR UPDATE SKIP LOCKED
)
UPDATE notifications AS n
SET status = 'sending', attempts = n.attempts + 1, lease_until = clock_timestamp() + $2::interval
FROM due
WHERE n.channel = $1 AND n.alert_id = due.alert_id
RETURNING n.alert_id, n.attempts, n.topic, n.subject, n.payload, n.raised_at;

-- name: keep_claims
-- Hold on to what was taken; answers what is still the caller's.
-- $1 channel, $2 alert ids, $3 attempts as they were taken, $4 how long the lease is
UPDATE notifications AS n
SET lease_until = clock_timestamp() + $4::interval
FROM unnest($2::text[], $3::integer[]) AS taken(alert_id, attempts)
WHERE n.channel = $1 AND n.alert_id = taken.alert_id AND n.attempts = taken.attempts AND n.status = 'sending'
RETURNING n.alert_id;

-- name: mark_sent
-- The channel has these, whoever holds them now; answers those that were not known to be sent, and how long each took.
-- $1 channel, $2 alert ids
UPDATE notifications
SET status = 'sent', sent_at = clock_timestamp(), lease_until = NULL, error = NULL
WHERE channel = $1 AND alert_id = ANY ($2::text[]) AND status <> 'sent'
RETURNING alert_id, extract(epoch FROM sent_at - raised_at)::float8 AS seconds;

-- name: note_told
-- Write into the log of low stock that these alerts were told.
-- $1 alert ids, $2 channel
SELECT note_told($1::text[], $2);

-- name: put_back
-- What was taken and not sent waits again, or has failed where it has waited for too long; what another has taken since stays his.
-- $1 channel, $2 alert ids, $3 attempts as they were taken, $4 error, $5 next attempt in, $6 longest time to wait
UPDATE notifications AS n
SET status = CASE WHEN n.created_at <= clock_timestamp() - $6::interval THEN 'failed' ELSE 'pending' END,
    lease_until = NULL, error = $4, next_attempt_at = clock_timestamp() + $5::interval
FROM unnest($2::text[], $3::integer[]) AS taken(alert_id, attempts)
WHERE n.channel = $1 AND n.alert_id = taken.alert_id AND n.attempts = taken.attempts AND n.status = 'sending'
RETURNING n.alert_id, n.status;

-- name: rest_channel
-- The next message of a channel goes out after this time.
-- $1 channel, $2 from now
UPDATE notification_channels SET next_message_at = clock_timestamp() + $2::interval WHERE channel = $1;

-- name: hold_channel
-- Leave a channel alone for as long as it has asked for.
-- $1 channel, $2 from now
UPDATE notification_channels
SET held_until = greatest(held_until, clock_timestamp() + $2::interval)
WHERE channel = $1;

-- name: give_up_notifications
-- What has waited for too long has failed, on any channel; answers what that was.
-- $1 longest time to wait, $2 the channels that are configured here, $3 how many
WITH overdue AS (
  SELECT alert_id, channel
  FROM notifications
  WHERE status IN ('pending', 'sending') AND created_at <= clock_timestamp() - $1::interval
    AND (lease_until IS NULL OR lease_until <= clock_timestamp())
  LIMIT $3
  FOR UPDATE SKIP LOCKED
)
UPDATE notifications AS n
SET status = 'failed', lease_until = NULL,
    error = CASE WHEN n.channel = ANY ($2::text[]) THEN coalesce(n.error, 'never tried') ELSE 'no such channel is configured' END
FROM overdue
WHERE n.alert_id = overdue.alert_id AND n.channel = overdue.channel
RETURNING n.alert_id, n.channel, n.error;

-- name: count_pending_notifications
-- How many notifications wait or are being sent, by channel.
SELECT channel, count(*) AS waiting FROM notifications WHERE status IN ('pending', 'sending') GROUP BY channel;
