-- Replays that write: what each was asked for, where it stands in each partition, and its closed account.
-- The positions of the live groups are in stream_positions; no replay touches them.

CREATE TABLE replays (
  id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  digest       text COLLATE "C" NOT NULL,
  spec         jsonb NOT NULL,
  mode         text COLLATE "C" NOT NULL,
  cluster_id   text COLLATE "C" NOT NULL,
  started_at   timestamptz NOT NULL DEFAULT now(),
  touched_at   timestamptz NOT NULL DEFAULT now(),
  finished_at  timestamptz,
  summary      jsonb
);

CREATE INDEX replays_unfinished ON replays (digest) WHERE finished_at IS NULL;

COMMENT ON COLUMN replays.digest IS 'of spec: a replay that was broken off is gone on with by the next one of the same digest';
COMMENT ON COLUMN replays.touched_at IS 'kept fresh by the process that runs it; -infinity where that has ended in order';

CREATE TABLE replay_positions (
  replay_id     bigint  NOT NULL REFERENCES replays,
  cluster_id    text    COLLATE "C" NOT NULL,
  topic         text    COLLATE "C" NOT NULL,
  "partition"   integer NOT NULL,
  first_offset  bigint  NOT NULL,
  next_offset   bigint  NOT NULL,
  end_offset    bigint  NOT NULL,
  applied       bigint  NOT NULL DEFAULT 0,
  duplicates    bigint  NOT NULL DEFAULT 0,
  dead          bigint  NOT NULL DEFAULT 0,
  passed_over   bigint  NOT NULL DEFAULT 0,
  overwritten   bigint  NOT NULL DEFAULT 0,
  released      bigint  NOT NULL DEFAULT 0,
  last_offset   bigint,
  last_record_at timestamptz,
  PRIMARY KEY (replay_id, topic, "partition"),
  CONSTRAINT account_closes CHECK (next_offset - first_offset = applied + duplicates + dead + passed_over),
  CONSTRAINT account_not_negative
    CHECK (least(applied, duplicates, dead, passed_over, overwritten, released, first_offset) >= 0),
  CONSTRAINT stretch_not_negative CHECK (end_offset >= first_offset)
) WITH (fillfactor = 50);

COMMENT ON TABLE replay_positions IS 'Each partition''s place in a replay: next_offset - first_offset = applied + duplicates + dead + passed_over';
COMMENT ON COLUMN replay_positions.passed_over IS 'offsets out of the window, or without a record';
COMMENT ON COLUMN replay_positions.overwritten IS 'rows that differed and were put right';
COMMENT ON COLUMN replay_positions.last_record_at IS 'with last_offset: the last record read; at that offset another one means another log';
COMMENT ON COLUMN replay_positions.released IS 'dead letters that went through and are resolved';
