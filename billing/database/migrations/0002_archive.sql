-- Which raw bytes a bill is computed from. Append-only: a row says that the file holds every record of
-- [offset_from, offset_to) of its shard, and rows of a shard follow each other without gap or overlap.

CREATE TABLE billing.archive_manifest (
    file              text        PRIMARY KEY,
    shard             integer     NOT NULL CHECK (shard >= 0),
    offset_from       bigint      NOT NULL CHECK (offset_from >= 0),
    offset_to         bigint      NOT NULL CHECK (offset_to > offset_from),
    rows              bigint      NOT NULL CHECK (rows >= 0),
    malformed_rows    bigint      NOT NULL CHECK (malformed_rows >= 0),
    bytes             bigint      NOT NULL CHECK (bytes > 0),
    sha256            char(64)    NOT NULL,
    -- The hour in which the log took the records.
    hour              timestamptz NOT NULL,
    -- Over the file's clicks, in milliseconds since 1970; null where it holds none.
    min_event_time_ms bigint,
    max_event_time_ms bigint,
    -- The UTC days of event time on which the file has clicks.
    event_days        date[]      NOT NULL,
    UNIQUE (shard, offset_from),
    UNIQUE (shard, offset_to)
);
CREATE INDEX archive_manifest_event_time ON billing.archive_manifest (max_event_time_ms, min_event_time_ms);

CREATE FUNCTION billing.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '%.% is append-only', TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation', HINT = 'write a new row that says what changed';
END $$;

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON billing.archive_manifest
    FOR EACH STATEMENT EXECUTE FUNCTION billing.refuse_change();

-- Contiguity is the table's own rule, not only its writer's: two archivers cannot both win.
CREATE FUNCTION billing.require_contiguous() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE archived bigint;
BEGIN
    SELECT coalesce(max(offset_to), 0) INTO archived FROM billing.archive_manifest WHERE shard = NEW.shard;
    IF NEW.offset_from <> archived THEN
        RAISE EXCEPTION 'shard % is archived up to %, a file from % does not continue it', NEW.shard, archived, NEW.offset_from
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER contiguous BEFORE INSERT ON billing.archive_manifest
    FOR EACH ROW EXECUTE FUNCTION billing.require_contiguous();
