-- What the stream said, and what advertisers agreed to.
--
-- 64-bit ids: ad and campaign ids are below 2^63; a click id is stored as its signed bit pattern.

CREATE SCHEMA reports;
CREATE SCHEMA catalog;
CREATE SCHEMA billing;
CREATE SCHEMA audit;

-- One window of one ad, absolute values; a writer replaces a row only by a higher revision.
-- Time first, so that a report reads neighbouring pages; half-filled pages, so that corrections stay on them (HOT updates).
CREATE TABLE reports.ad_minute (
    minute         timestamptz NOT NULL,
    ad_id          bigint      NOT NULL,
    campaign_id    bigint      NOT NULL,
    clicks         bigint      NOT NULL CHECK (clicks >= 0),
    invalid_clicks bigint      NOT NULL CHECK (invalid_clicks >= 0),
    spend_micros   bigint      NOT NULL,
    revision       bigint      NOT NULL,
    state          text        NOT NULL CHECK (state IN ('open', 'fired', 'corrected', 'final')),
    PRIMARY KEY (minute, ad_id, campaign_id)
) WITH (fillfactor = 50);

-- Clicks that came after their window was final: not in ad_minute, but on the invoice.
CREATE TABLE reports.late_click (
    click_id    bigint      PRIMARY KEY,
    campaign_id bigint      NOT NULL,
    ad_id       bigint      NOT NULL,
    event_time  timestamptz NOT NULL,
    shard       integer     NOT NULL,
    log_offset  bigint      NOT NULL,
    watermark   timestamptz NOT NULL,
    valid       boolean     NOT NULL
);
CREATE INDEX late_click_event_time ON reports.late_click (event_time);

-- How far the writer has read its topics; moves in the same transaction as the rows it read.
CREATE TABLE reports.sink_progress (
    topic       text    NOT NULL,
    partition   integer NOT NULL,
    next_offset bigint  NOT NULL,
    PRIMARY KEY (topic, partition)
);

CREATE TABLE catalog.campaign_terms (
    campaign_id           bigint      NOT NULL,
    revision              bigint      NOT NULL,
    advertiser_id         bigint      NOT NULL,
    name                  text        NOT NULL,
    currency              char(3)     NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    cost_per_click_micros bigint      NOT NULL CHECK (cost_per_click_micros >= 0),
    budget_micros         bigint      NOT NULL CHECK (budget_micros >= 0),
    tolerance_micros      bigint      NOT NULL CHECK (tolerance_micros >= 0),
    effective_from        timestamptz NOT NULL,
    PRIMARY KEY (campaign_id, revision)
);

CREATE VIEW catalog.campaign AS
    SELECT DISTINCT ON (campaign_id) *
    FROM catalog.campaign_terms
    ORDER BY campaign_id, revision DESC;
