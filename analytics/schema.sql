-- How rows are kept: the tables of schema version 1. What people query are the views of views.sql.
--
-- No primary keys and no indexes: on tables this big they cost more per batch than they save. Rows are found through
-- the in-memory filters of seen.py and the time ranges that DuckDB keeps per row group, so every table is in the
-- order of arrival. A call is one wide row, its lists nested, so that a changed call is one row to replace.

CREATE SCHEMA kept;

CREATE TABLE kept.calls (
    call_hash BIGINT NOT NULL, -- of (provider, org, call_id), see columns.call_hash
    provider VARCHAR NOT NULL,
    org VARCHAR NOT NULL,
    call_id VARCHAR NOT NULL,
    counted_at TIMESTAMP NOT NULL,
    agent_id VARCHAR,
    agent_name VARCHAR,
    campaign VARCHAR,
    direction VARCHAR,
    status VARCHAR,
    end_call_reason VARCHAR,
    custom_end_call_reason VARCHAR,
    connection VARCHAR NOT NULL,
    ended_by VARCHAR NOT NULL,
    result VARCHAR NOT NULL,
    excluded VARCHAR,
    transferred BOOLEAN NOT NULL,
    transferred_to VARCHAR,
    transfer_reason VARCHAR,
    started_at TIMESTAMP,
    ended_at TIMESTAMP,
    duration_s DOUBLE,
    caller_phone VARCHAR,
    callee_phone VARCHAR,
    caller_name VARCHAR,
    caller_email VARCHAR,
    summary VARCHAR,
    transcript VARCHAR,
    recording_url VARCHAR,
    sentiment VARCHAR,
    disposition VARCHAR,
    intent VARCHAR,
    urgency VARCHAR,
    tags VARCHAR[],
    cost_usd DOUBLE,
    trust VARCHAR NOT NULL,
    conflict BOOLEAN NOT NULL,
    first_received_at TIMESTAMP NOT NULL,
    last_received_at TIMESTAMP NOT NULL,
    event_count BIGINT NOT NULL,
    analysis STRUCT(criterion VARCHAR, result VARCHAR, feedback VARCHAR)[],
    variables STRUCT(
        agent_id VARCHAR, name VARCHAR, value VARCHAR, value_text VARCHAR, value_number DOUBLE, collected BOOLEAN)[],
    actions STRUCT(
        name VARCHAR, action_type VARCHAR, return_value VARCHAR, error_message VARCHAR, happened_at TIMESTAMP)[],
    appointments STRUCT(
        starts_at TIMESTAMP, ends_at TIMESTAMP, service VARCHAR, caller_name VARCHAR, caller_phone VARCHAR,
        calendar_event_id VARCHAR, link VARCHAR)[],
    leads STRUCT(
        name VARCHAR, phone VARCHAR, email VARCHAR, intent VARCHAR, urgency VARCHAR, interest VARCHAR,
        summary VARCHAR)[]
);

CREATE TABLE kept.events (
    call_hash BIGINT, -- null for events without a call
    event_id VARCHAR NOT NULL,
    provider VARCHAR NOT NULL,
    org VARCHAR NOT NULL,
    call_id VARCHAR,
    source VARCHAR NOT NULL,
    event VARCHAR NOT NULL,
    happened_at TIMESTAMP NOT NULL,
    received_at TIMESTAMP NOT NULL,
    journal_id VARCHAR NOT NULL,
    position BIGINT NOT NULL,
    delivery_id VARCHAR,
    trust VARCHAR NOT NULL,
    data VARCHAR NOT NULL, -- text: a JSON column would be checked again at every insert
    raw BLOB, -- the body, where data is not exactly it
    source_org VARCHAR NOT NULL,
    headers VARCHAR NOT NULL -- JSON object
);

-- Bookings and leads of events that belong to no call; those of calls stand in the call's row.
CREATE TABLE kept.loose_appointments (
    event_id VARCHAR NOT NULL,
    provider VARCHAR NOT NULL,
    org VARCHAR NOT NULL,
    starts_at TIMESTAMP,
    ends_at TIMESTAMP,
    service VARCHAR,
    caller_name VARCHAR,
    caller_phone VARCHAR,
    calendar_event_id VARCHAR,
    link VARCHAR
);

CREATE TABLE kept.loose_leads (
    event_id VARCHAR NOT NULL,
    provider VARCHAR NOT NULL,
    org VARCHAR NOT NULL,
    name VARCHAR,
    phone VARCHAR,
    email VARCHAR,
    intent VARCHAR,
    urgency VARCHAR,
    interest VARCHAR,
    summary VARCHAR
);

CREATE TABLE kept.deliveries (
    id_hash BIGINT, -- of id, see columns.delivery_hash
    id VARCHAR,
    journal_id VARCHAR NOT NULL,
    position BIGINT NOT NULL,
    source VARCHAR NOT NULL,
    provider VARCHAR NOT NULL,
    verdict VARCHAR NOT NULL,
    reason VARCHAR,
    trust VARCHAR,
    bytes BIGINT NOT NULL,
    count BIGINT NOT NULL,
    received_at TIMESTAMP NOT NULL,
    applied_at TIMESTAMP NOT NULL
);

CREATE TABLE kept.dead_letters (
    journal_id VARCHAR NOT NULL,
    position BIGINT NOT NULL,
    source VARCHAR NOT NULL,
    provider VARCHAR NOT NULL,
    reason VARCHAR NOT NULL,
    detail VARCHAR NOT NULL,
    received_at TIMESTAMP NOT NULL,
    source_org VARCHAR NOT NULL,
    trust VARCHAR NOT NULL,
    headers VARCHAR NOT NULL,
    body BLOB NOT NULL
);

-- Durations are whole microseconds here: sums of floating numbers would depend on the order of retracting and adding.
CREATE TABLE kept.rollup_calls (
    bucket_start TIMESTAMP NOT NULL,
    provider VARCHAR NOT NULL,
    org VARCHAR NOT NULL,
    agent_id VARCHAR,
    campaign VARCHAR,
    direction VARCHAR,
    status VARCHAR,
    end_call_reason VARCHAR,
    connection VARCHAR NOT NULL,
    ended_by VARCHAR NOT NULL,
    result VARCHAR NOT NULL,
    calls BIGINT NOT NULL,
    transferred BIGINT NOT NULL,
    booked BIGINT NOT NULL,
    duration_us BIGINT NOT NULL,
    duration_n BIGINT NOT NULL
);

CREATE TABLE kept.rollup_analysis (
    bucket_start TIMESTAMP NOT NULL,
    provider VARCHAR NOT NULL,
    org VARCHAR NOT NULL,
    agent_id VARCHAR,
    direction VARCHAR,
    criterion VARCHAR NOT NULL,
    result VARCHAR NOT NULL,
    calls BIGINT NOT NULL
);

CREATE TABLE kept.rollup_variables (
    bucket_start TIMESTAMP NOT NULL,
    provider VARCHAR NOT NULL,
    org VARCHAR NOT NULL,
    agent_id VARCHAR,
    direction VARCHAR,
    name VARCHAR NOT NULL,
    calls BIGINT NOT NULL,
    collected BIGINT NOT NULL,
    filled BIGINT NOT NULL
);

-- What batches added to and retracted from the three roll-ups since these were last brought up to date (rollups.sql).
-- One insert a batch, whatever the size of the roll-ups; the views add it in, so readers never see a difference.
CREATE TABLE kept.rollup_changes (
    rollup VARCHAR NOT NULL, -- calls, analysis or variables
    bucket_start TIMESTAMP NOT NULL,
    provider VARCHAR NOT NULL,
    org VARCHAR NOT NULL,
    agent_id VARCHAR,
    campaign VARCHAR,
    direction VARCHAR,
    status VARCHAR,
    end_call_reason VARCHAR,
    connection VARCHAR,
    ended_by VARCHAR,
    label VARCHAR, -- the criterion or the variable's name
    result VARCHAR,
    calls BIGINT NOT NULL,
    transferred BIGINT NOT NULL,
    booked BIGINT NOT NULL,
    duration_us BIGINT NOT NULL,
    duration_n BIGINT NOT NULL,
    collected BIGINT NOT NULL,
    filled BIGINT NOT NULL
);

CREATE TABLE kept.positions (
    stream VARCHAR NOT NULL,
    stream_id VARCHAR NOT NULL,
    position BIGINT NOT NULL,
    updated_at TIMESTAMP NOT NULL
);

CREATE TABLE kept.schema_columns ("table" VARCHAR, "column" VARCHAR, type VARCHAR, comment VARCHAR);

-- One row: what made this store. `made_by` is the fingerprint of the rules and of the code that reads deliveries.
CREATE TABLE kept.schema_version (version INTEGER NOT NULL, made_by VARCHAR NOT NULL, views VARCHAR NOT NULL);
