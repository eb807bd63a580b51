-- What Kafka deleted before we had read it. The offsets are in their partition's account, among those skipped.

CREATE TABLE lost_offsets (
  cluster_id      text   COLLATE "C" NOT NULL,
  consumer_group  text   COLLATE "C" NOT NULL,
  topic           text   COLLATE "C" NOT NULL,
  "partition"     integer NOT NULL,
  first_offset    bigint NOT NULL,
  next_offset     bigint NOT NULL,
  noticed_at      timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (cluster_id, consumer_group, topic, "partition", noticed_at, first_offset),
  CONSTRAINT something_was_lost CHECK (0 <= first_offset AND first_offset < next_offset)
);

COMMENT ON TABLE lost_offsets IS 'the stretches of a log that retention took before they were read; written with the batch that went on behind them';
COMMENT ON COLUMN lost_offsets.next_offset IS 'the first offset that was not lost';
