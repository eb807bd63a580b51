-- How records travelled: where each partition has been read to, and what was parked on the way.
-- Ids and codes compare bytewise (COLLATE "C"): the order in which workers sort is the order in which rows are locked.

CREATE TABLE stream_positions (
  cluster_id      text   COLLATE "C" NOT NULL,
  consumer_group  text   COLLATE "C" NOT NULL,
  topic           text   COLLATE "C" NOT NULL,
  "partition"     integer NOT NULL,
  first_offset    bigint NOT NULL,
  next_offset     bigint NOT NULL,
  applied         bigint NOT NULL DEFAULT 0,
  duplicates      bigint NOT NULL DEFAULT 0,
  dead            bigint NOT NULL DEFAULT 0,
  skipped         bigint NOT NULL DEFAULT 0,
  last_offset     bigint,
  last_record_at  timestamptz,
  updated_at      timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (cluster_id, consumer_group, topic, "partition"),
  CONSTRAINT account_closes CHECK (next_offset - first_offset = applied + duplicates + dead + skipped),
  CONSTRAINT account_not_negative CHECK (least(applied, duplicates, dead, skipped, first_offset) >= 0)
) WITH (fillfactor = 50);

COMMENT ON TABLE stream_positions IS 'Each partition''s place and its closed account: next_offset - first_offset = applied + duplicates + dead + skipped';
COMMENT ON COLUMN stream_positions.last_offset IS 'offset of the last record read, whose timestamp is last_record_at: together they recognise a replaced log';

-- The account of a log that is gone (its topic was recreated), kept when its position starts anew.
CREATE TABLE stream_positions_retired (
  LIKE stream_positions,
  retired_at  timestamptz NOT NULL DEFAULT now(),
  reason      text NOT NULL
);

-- A number for each log partition, so that a ledger row names its record in twelve bytes.
CREATE TABLE stream_sources (
  id           integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  cluster_id   text COLLATE "C" NOT NULL,
  topic        text COLLATE "C" NOT NULL,
  "partition"  integer NOT NULL,
  UNIQUE (cluster_id, topic, "partition")
);

CREATE TABLE dead_letters (
  id                bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  cluster_id        text COLLATE "C" NOT NULL,
  topic             text COLLATE "C" NOT NULL,
  "partition"       integer NOT NULL,
  "offset"          bigint NOT NULL,
  key               bytea,
  value             bytea,
  headers           jsonb NOT NULL DEFAULT '[]',
  record_timestamp  timestamptz NOT NULL,
  error_kind        text NOT NULL,
  error             text NOT NULL,
  first_seen_at     timestamptz NOT NULL DEFAULT now(),
  retried_at        timestamptz,
  resolved_at       timestamptz,
  resolution        text,
  CONSTRAINT dead_letters_identity UNIQUE (cluster_id, topic, "partition", "offset", record_timestamp)
);

CREATE INDEX dead_letters_open ON dead_letters (topic, id) WHERE resolved_at IS NULL;

COMMENT ON COLUMN dead_letters.headers IS 'array of [name, value]; a value that is not UTF-8 stands as {"base64": …}';
