-- What was refused is told apart by the digest of its content, which may be longer than an index takes.

ALTER TABLE refused_facts ADD COLUMN digest text COLLATE "C" GENERATED ALWAYS AS (md5(content::text)) STORED;
ALTER TABLE refused_facts DROP CONSTRAINT refused_facts_pkey;
ALTER TABLE refused_facts ADD PRIMARY KEY (order_id, topic, digest);

COMMENT ON COLUMN refused_facts.digest IS 'of the content';
