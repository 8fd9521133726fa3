-- Distinct users and what clicks said they cost, beside the counts.

ALTER TABLE reports.ad_minute
    -- An estimate (standard error 1.6 %), and the sketch it comes from, to be merged over rows (proto/schema/window_count.proto).
    -- Null in rows written before these columns were: nobody knows.
    ADD COLUMN unique_users    bigint CHECK (unique_users >= 0),
    ADD COLUMN user_sketch     bytea  CHECK (octet_length(user_sketch) <= 2048),
    -- Of the clicks' own cost_per_click; informative, what is owed goes by the campaign's terms.
    ADD COLUMN cost_sum_micros bigint NOT NULL DEFAULT 0 CHECK (cost_sum_micros >= 0),
    ADD COLUMN cost_count      bigint NOT NULL DEFAULT 0 CHECK (cost_count >= 0);
