-- Tweets that X has deleted. The sweep at the end of the UTC day reads the day's tweets of tracked accounts again; one
-- that is stored, that a whole answer left out, and that X says it does not know when asked for it by id, is marked. A
-- tweet that shows up again is unmarked. Versions of an edited tweet have the same edit_history_ids, oldest first.

ALTER TABLE tweets ADD COLUMN deleted_seen_at timestamptz;

CREATE INDEX tweets_deleted ON tweets (deleted_seen_at) WHERE deleted_seen_at IS NOT NULL;
