-- Notifications: a row for each alert and each channel that it is to be told on, and when each channel may be spoken to again.

CREATE TABLE notifications (
  alert_id         text COLLATE "C" NOT NULL,
  channel          text COLLATE "C" NOT NULL,
  status           text COLLATE "C" NOT NULL DEFAULT 'pending',
  attempts         integer NOT NULL DEFAULT 0,
  topic            text COLLATE "C" NOT NULL,
  subject          text COLLATE "C" NOT NULL,
  payload          jsonb NOT NULL,
  raised_at        timestamptz NOT NULL,
  created_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
  next_attempt_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
  lease_until      timestamptz,
  sent_at          timestamptz,
  error            text,
  PRIMARY KEY (alert_id, channel),
  CONSTRAINT alert_id_not_blank CHECK (alert_id <> ''),
  CONSTRAINT channel_not_blank CHECK (channel <> ''),
  CONSTRAINT subject_not_blank CHECK (subject <> ''),
  CONSTRAINT status_is_known CHECK (status IN ('pending', 'sending', 'sent', 'failed', 'expired')),
  CONSTRAINT attempts_not_negative CHECK (attempts >= 0),
  CONSTRAINT payload_is_an_object CHECK (jsonb_typeof(payload) = 'object'),
  CONSTRAINT leased_while_it_is_sent CHECK ((status = 'sending') = (lease_until IS NOT NULL)),
  CONSTRAINT sent_has_its_time CHECK ((status = 'sent') = (sent_at IS NOT NULL))
);

-- what a channel may take next: what waits, and what somebody has taken who may be gone
CREATE INDEX notifications_due ON notifications (channel, (coalesce(lease_until, next_attempt_at)))
WHERE status IN ('pending', 'sending');

CREATE INDEX notifications_by_time ON notifications (created_at);

COMMENT ON TABLE notifications IS 'each alert is told once on each channel that was configured when it came';
COMMENT ON COLUMN notifications.status IS
  'pending → sending → sent; failed where the channel refused it or it could not be sent in time, expired where it was old when it came';
COMMENT ON COLUMN notifications.attempts IS 'how often it was taken to be sent; who took it says so with this number';
COMMENT ON COLUMN notifications.topic IS 'by its default name';
COMMENT ON COLUMN notifications.subject IS 'the voucher or SKU that it is told of';
COMMENT ON COLUMN notifications.raised_at IS 'when its cause was, as its record says';
COMMENT ON COLUMN notifications.lease_until IS 'until then it belongs to whoever is sending it';
COMMENT ON COLUMN notifications.error IS 'why the last attempt failed';

-- The turns of a channel: of all workers one speaks at a time, and what comes meanwhile is one message.
CREATE TABLE notification_channels (
  channel          text COLLATE "C" PRIMARY KEY,
  next_message_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
  held_until       timestamptz NOT NULL DEFAULT '-infinity',
  CONSTRAINT channel_not_blank CHECK (channel <> '')
);

COMMENT ON COLUMN notification_channels.next_message_at IS 'the next message goes out no sooner: one is being sent, or was just now';
COMMENT ON COLUMN notification_channels.held_until IS 'nor before that, which the channel has asked for (Retry-After)';
