-- What people query: the public tables of the store and what each column means.
--
-- Their names, columns, types and order are a contract (docs, exports and other people's SQL go by them); how the rows
-- are kept behind them is not. JSON is cast with TRY_CAST so that no single value can make a whole query fail.
-- The comments below are the only description of the columns: schema_columns is filled from them.

CREATE OR REPLACE VIEW calls AS
SELECT
    provider, org, call_id, counted_at, agent_id, agent_name, campaign, direction, status, end_call_reason,
    custom_end_call_reason, connection, ended_by, result, excluded, transferred, transferred_to,
    transfer_reason, started_at, ended_at, duration_s, caller_phone, callee_phone, caller_name, caller_email,
    summary, transcript, recording_url, sentiment, disposition, intent, urgency, tags, cost_usd, trust,
    conflict, first_received_at, last_received_at, event_count
FROM kept.calls;

COMMENT ON VIEW calls IS 'One row a call: what all its events add up to.';
COMMENT ON COLUMN calls.provider IS 'The platform that sent it.';
COMMENT ON COLUMN calls.org IS 'The organisation it belongs to; empty where there is none.';
COMMENT ON COLUMN calls.call_id IS 'The provider''s id of the call, unique within provider and org.';
COMMENT ON COLUMN calls.counted_at IS 'When the call counts: started_at, or its earliest event where that is null or over a day away. UTC.';
COMMENT ON COLUMN calls.agent_id IS 'The AI agent (CallSync: the member of staff).';
COMMENT ON COLUMN calls.agent_name IS 'Its name.';
COMMENT ON COLUMN calls.campaign IS 'The campaign the call belongs to.';
COMMENT ON COLUMN calls.direction IS 'inbound, outbound, or null where the provider does not say.';
COMMENT ON COLUMN calls.status IS 'The provider''s own status.';
COMMENT ON COLUMN calls.end_call_reason IS 'The provider''s own reason for the end.';
COMMENT ON COLUMN calls.custom_end_call_reason IS 'The provider''s own words where its reason is a custom one.';
COMMENT ON COLUMN calls.connection IS 'Whom the call reached: person, machine, no_answer, busy, canceled, failed, in_progress or unknown.';
COMMENT ON COLUMN calls.ended_by IS 'Who ended it: caller (the person on the line), agent, transfer, limit, system or unknown.';
COMMENT ON COLUMN calls.result IS 'Whether it reached its aim: met, partly, not_met, not_applicable or unknown.';
COMMENT ON COLUMN calls.excluded IS 'spam or test: counted apart and left out of rates and roll-ups; null for all other calls.';
COMMENT ON COLUMN calls.transferred IS 'Whether it was handed to somebody else.';
COMMENT ON COLUMN calls.transferred_to IS 'To whom.';
COMMENT ON COLUMN calls.transfer_reason IS 'Why.';
COMMENT ON COLUMN calls.started_at IS 'Start, UTC.';
COMMENT ON COLUMN calls.ended_at IS 'End, UTC.';
COMMENT ON COLUMN calls.duration_s IS 'Length in seconds; null where unknown, never 0 for that.';
COMMENT ON COLUMN calls.caller_phone IS 'The caller''s number as the platform tells it; of an outbound call the outside person''s is callee_phone where that is set.';
COMMENT ON COLUMN calls.callee_phone IS 'The number that was called, where the platform tells it.';
COMMENT ON COLUMN calls.caller_name IS 'The outside person''s name.';
COMMENT ON COLUMN calls.caller_email IS 'The outside person''s e-mail address.';
COMMENT ON COLUMN calls.summary IS 'The provider''s summary.';
COMMENT ON COLUMN calls.transcript IS 'What was said.';
COMMENT ON COLUMN calls.recording_url IS 'Where the provider keeps the recording.';
COMMENT ON COLUMN calls.sentiment IS 'The provider''s word for the mood.';
COMMENT ON COLUMN calls.disposition IS 'The provider''s word for the outcome.';
COMMENT ON COLUMN calls.intent IS 'What the person wanted.';
COMMENT ON COLUMN calls.urgency IS 'How urgent it was.';
COMMENT ON COLUMN calls.tags IS 'The provider''s labels.';
COMMENT ON COLUMN calls.cost_usd IS 'Cost in US dollars, where the provider sends it.';
COMMENT ON COLUMN calls.trust IS 'The weakest proof of its events: A body and time signed, B body signed, C only an id signed, D unsigned.';
COMMENT ON COLUMN calls.conflict IS 'Whether later versions, provable by an id only, contradict the one that counts.';
COMMENT ON COLUMN calls.first_received_at IS 'When its first event arrived, UTC.';
COMMENT ON COLUMN calls.last_received_at IS 'When its latest event arrived, UTC.';
COMMENT ON COLUMN calls.event_count IS 'How many distinct events it is made of.';

CREATE OR REPLACE VIEW call_analysis AS
SELECT provider, org, call_id, item.criterion, item.result, item.feedback
FROM (SELECT provider, org, call_id, unnest(analysis) AS item FROM kept.calls);

COMMENT ON VIEW call_analysis IS 'One row a call and judged criterion.';
COMMENT ON COLUMN call_analysis.provider IS 'The platform that sent it.';
COMMENT ON COLUMN call_analysis.org IS 'The organisation it belongs to; empty where there is none.';
COMMENT ON COLUMN call_analysis.call_id IS 'The provider''s id of the call, unique within provider and org.';
COMMENT ON COLUMN call_analysis.criterion IS 'What was judged, in the provider''s words.';
COMMENT ON COLUMN call_analysis.result IS 'true, false, partial or not_applicable; anything else is the provider''s own word.';
COMMENT ON COLUMN call_analysis.feedback IS 'Why.';

CREATE OR REPLACE VIEW call_variables AS
SELECT provider, org, call_id, item.agent_id, item."name", TRY_CAST(item."value" AS JSON) AS "value",
    item.value_text, item.value_number, item.collected
FROM (SELECT provider, org, call_id, unnest(variables) AS item FROM kept.calls);

COMMENT ON VIEW call_variables IS 'One row a call and variable the agent was to collect.';
COMMENT ON COLUMN call_variables.provider IS 'The platform that sent it.';
COMMENT ON COLUMN call_variables.org IS 'The organisation it belongs to; empty where there is none.';
COMMENT ON COLUMN call_variables.call_id IS 'The provider''s id of the call, unique within provider and org.';
COMMENT ON COLUMN call_variables.agent_id IS 'The agent that was to collect it.';
COMMENT ON COLUMN call_variables.name IS 'The variable.';
COMMENT ON COLUMN call_variables.value IS 'Its value as JSON; null where nothing was sent.';
COMMENT ON COLUMN call_variables.value_text IS 'Its value as plain text.';
COMMENT ON COLUMN call_variables.value_number IS 'Its value where it is a JSON number.';
COMMENT ON COLUMN call_variables.collected IS 'Whether the provider says it was collected.';

CREATE OR REPLACE VIEW call_actions AS
SELECT provider, org, call_id, item."name", item.action_type, TRY_CAST(item.return_value AS JSON) AS return_value,
    item.error_message, item.happened_at
FROM (SELECT provider, org, call_id, unnest(actions) AS item FROM kept.calls);

COMMENT ON VIEW call_actions IS 'One row a thing the agent did during a call.';
COMMENT ON COLUMN call_actions.provider IS 'The platform that sent it.';
COMMENT ON COLUMN call_actions.org IS 'The organisation it belongs to; empty where there is none.';
COMMENT ON COLUMN call_actions.call_id IS 'The provider''s id of the call, unique within provider and org.';
COMMENT ON COLUMN call_actions.name IS 'The action.';
COMMENT ON COLUMN call_actions.action_type IS 'Its kind.';
COMMENT ON COLUMN call_actions.return_value IS 'What it returned, as JSON.';
COMMENT ON COLUMN call_actions.error_message IS 'What went wrong, if anything.';
COMMENT ON COLUMN call_actions.happened_at IS 'When, UTC.';

CREATE OR REPLACE VIEW call_events AS
SELECT
    event_id, provider, org, call_id, source, event, happened_at, received_at, position, delivery_id, trust,
    TRY_CAST(data AS JSON) AS data
FROM kept.events
WHERE call_id IS NOT NULL;

COMMENT ON VIEW call_events IS 'The timeline: one row an event of a call.';
COMMENT ON COLUMN call_events.event_id IS 'Derived from the body, so that a repetition is the same event.';
COMMENT ON COLUMN call_events.provider IS 'The platform that sent it.';
COMMENT ON COLUMN call_events.org IS 'The organisation it belongs to; empty where there is none.';
COMMENT ON COLUMN call_events.call_id IS 'The provider''s id of the call, unique within provider and org.';
COMMENT ON COLUMN call_events.source IS 'The configured sender it came from.';
COMMENT ON COLUMN call_events.event IS 'The provider''s word for what happened.';
COMMENT ON COLUMN call_events.happened_at IS 'When it happened, UTC.';
COMMENT ON COLUMN call_events.received_at IS 'When it arrived, UTC.';
COMMENT ON COLUMN call_events.position IS 'Its delivery''s place in the journal.';
COMMENT ON COLUMN call_events.delivery_id IS 'The provider''s own id of the delivery.';
COMMENT ON COLUMN call_events.trust IS 'How it is proved: A body and time signed, B body signed, C only an id signed, D unsigned.';
COMMENT ON COLUMN call_events.data IS 'The whole body as JSON.';

CREATE OR REPLACE VIEW other_events AS
SELECT
    event_id, provider, org, call_id, source, event, happened_at, received_at, position, delivery_id, trust,
    TRY_CAST(data AS JSON) AS data
FROM kept.events
WHERE call_id IS NULL;

COMMENT ON VIEW other_events IS 'Events of no call: of agents, campaigns, messages.';
COMMENT ON COLUMN other_events.event_id IS 'Derived from the body, so that a repetition is the same event.';
COMMENT ON COLUMN other_events.provider IS 'The platform that sent it.';
COMMENT ON COLUMN other_events.org IS 'The organisation it belongs to; empty where there is none.';
COMMENT ON COLUMN other_events.call_id IS 'Always null.';
COMMENT ON COLUMN other_events.source IS 'The configured sender it came from.';
COMMENT ON COLUMN other_events.event IS 'The provider''s word for what happened.';
COMMENT ON COLUMN other_events.happened_at IS 'When it happened, UTC.';
COMMENT ON COLUMN other_events.received_at IS 'When it arrived, UTC.';
COMMENT ON COLUMN other_events.position IS 'Its delivery''s place in the journal.';
COMMENT ON COLUMN other_events.delivery_id IS 'The provider''s own id of the delivery.';
COMMENT ON COLUMN other_events.trust IS 'How it is proved: A body and time signed, B body signed, C only an id signed, D unsigned.';
COMMENT ON COLUMN other_events.data IS 'The whole body as JSON.';

CREATE OR REPLACE VIEW appointments AS
SELECT
    provider, org, call_id,
    item.starts_at, item.ends_at, item.service, item.caller_name, item.caller_phone, item.calendar_event_id,
    item.link
FROM (SELECT provider, org, call_id, unnest(appointments) AS item FROM kept.calls)
UNION ALL
SELECT
    provider, org, NULL AS call_id,
    starts_at, ends_at, service, caller_name, caller_phone, calendar_event_id, link
FROM kept.loose_appointments;

COMMENT ON VIEW appointments IS 'One row a booking.';
COMMENT ON COLUMN appointments.provider IS 'The platform that sent it.';
COMMENT ON COLUMN appointments.org IS 'The organisation it belongs to; empty where there is none.';
COMMENT ON COLUMN appointments.call_id IS 'The call it was made in; null where the provider named none.';
COMMENT ON COLUMN appointments.starts_at IS 'Start, UTC.';
COMMENT ON COLUMN appointments.ends_at IS 'End, UTC.';
COMMENT ON COLUMN appointments.service IS 'What was booked.';
COMMENT ON COLUMN appointments.caller_name IS 'For whom.';
COMMENT ON COLUMN appointments.caller_phone IS 'Their number.';
COMMENT ON COLUMN appointments.calendar_event_id IS 'The calendar''s id of it.';
COMMENT ON COLUMN appointments.link IS 'A link to it.';

CREATE OR REPLACE VIEW leads AS
SELECT
    provider, org, call_id,
    item."name", item.phone, item.email, item.intent, item.urgency, item.interest, item.summary
FROM (SELECT provider, org, call_id, unnest(leads) AS item FROM kept.calls)
UNION ALL
SELECT
    provider, org, NULL AS call_id,
    "name", phone, email, intent, urgency, interest, summary
FROM kept.loose_leads;

COMMENT ON VIEW leads IS 'One row a contact who showed interest.';
COMMENT ON COLUMN leads.provider IS 'The platform that sent it.';
COMMENT ON COLUMN leads.org IS 'The organisation it belongs to; empty where there is none.';
COMMENT ON COLUMN leads.call_id IS 'The call it was made in; null where the provider named none.';
COMMENT ON COLUMN leads.name IS 'Their name.';
COMMENT ON COLUMN leads.phone IS 'Their number.';
COMMENT ON COLUMN leads.email IS 'Their e-mail address.';
COMMENT ON COLUMN leads.intent IS 'What they want.';
COMMENT ON COLUMN leads.urgency IS 'How urgent it is.';
COMMENT ON COLUMN leads.interest IS 'What they are interested in.';
COMMENT ON COLUMN leads.summary IS 'The provider''s summary.';

CREATE OR REPLACE VIEW deliveries AS
SELECT id, position, source, provider, verdict, reason, trust, bytes, count, received_at, applied_at
FROM kept.deliveries;

COMMENT ON VIEW deliveries IS 'One row a delivery, and a row for what happened at the door without becoming one.';
COMMENT ON COLUMN deliveries.id IS 'Hex SHA-256 of source and body; null where several requests were merged.';
COMMENT ON COLUMN deliveries.position IS 'Its place in the journal.';
COMMENT ON COLUMN deliveries.source IS 'The configured sender.';
COMMENT ON COLUMN deliveries.provider IS 'Its platform.';
COMMENT ON COLUMN deliveries.verdict IS 'accepted, repeated, refused or inbound.';
COMMENT ON COLUMN deliveries.reason IS 'The refusal''s code.';
COMMENT ON COLUMN deliveries.trust IS 'How it is proved: A body and time signed, B body signed, C only an id signed, D unsigned.';
COMMENT ON COLUMN deliveries.bytes IS 'Size of the body.';
COMMENT ON COLUMN deliveries.count IS 'How many requests the row stands for.';
COMMENT ON COLUMN deliveries.received_at IS 'When it arrived, UTC.';
COMMENT ON COLUMN deliveries.applied_at IS 'When it became visible here, UTC.';

CREATE OR REPLACE VIEW dead_letters AS
SELECT position, source, provider, reason, detail, received_at
FROM kept.dead_letters;

COMMENT ON VIEW dead_letters IS 'Verified deliveries that could not be understood; their bytes are kept.';
COMMENT ON COLUMN dead_letters.position IS 'Its place in the journal.';
COMMENT ON COLUMN dead_letters.source IS 'The configured sender.';
COMMENT ON COLUMN dead_letters.provider IS 'Its platform.';
COMMENT ON COLUMN dead_letters.reason IS 'A code: not_json, no_call_id, normaliser_failed, ...';
COMMENT ON COLUMN dead_letters.detail IS 'What exactly, in one sentence.';
COMMENT ON COLUMN dead_letters.received_at IS 'When it arrived, UTC.';

CREATE OR REPLACE VIEW rollup_calls AS
SELECT
    bucket_start, provider, org, agent_id, campaign, direction, status, end_call_reason, connection, ended_by,
    result,
    calls, transferred, booked, duration_us / 1e6 AS duration_s_sum, duration_n
FROM kept.rollup_calls
WHERE bucket_start NOT IN (SELECT bucket_start FROM kept.rollup_changes WHERE rollup = 'calls')
UNION ALL
SELECT
    bucket_start, provider, org, agent_id, campaign, direction, status, end_call_reason, connection, ended_by,
    result,
    sum(calls)::BIGINT AS calls, sum(transferred)::BIGINT AS transferred, sum(booked)::BIGINT AS booked,
    sum(duration_us) / 1e6 AS duration_s_sum, sum(duration_n)::BIGINT AS duration_n
FROM (
    SELECT
        bucket_start, provider, org, agent_id, campaign, direction, status, end_call_reason, connection,
        ended_by, result,
        calls, transferred, booked, duration_us, duration_n
    FROM kept.rollup_calls
    WHERE bucket_start IN (SELECT bucket_start FROM kept.rollup_changes WHERE rollup = 'calls')
    UNION ALL
    SELECT
        bucket_start, provider, org, agent_id, campaign, direction, status, end_call_reason, connection,
        ended_by, result,
        calls, transferred, booked, duration_us, duration_n
    FROM kept.rollup_changes
    WHERE rollup = 'calls'
)
GROUP BY bucket_start, provider, org, agent_id, campaign, direction, status, end_call_reason, connection, ended_by,
    result
HAVING sum(calls) <> 0;

COMMENT ON VIEW rollup_calls IS 'Calls that are not excluded, counted by 15 minutes and what they have in common.';
COMMENT ON COLUMN rollup_calls.bucket_start IS 'Start of the 15 minutes in which the calls count, UTC.';
COMMENT ON COLUMN rollup_calls.provider IS 'The platform that sent it.';
COMMENT ON COLUMN rollup_calls.org IS 'The organisation it belongs to; empty where there is none.';
COMMENT ON COLUMN rollup_calls.agent_id IS 'The calls'' agent.';
COMMENT ON COLUMN rollup_calls.campaign IS 'The calls'' campaign.';
COMMENT ON COLUMN rollup_calls.direction IS 'inbound, outbound or null.';
COMMENT ON COLUMN rollup_calls.status IS 'The provider''s own status.';
COMMENT ON COLUMN rollup_calls.end_call_reason IS 'The provider''s own reason for the end.';
COMMENT ON COLUMN rollup_calls.connection IS 'Whom the calls reached.';
COMMENT ON COLUMN rollup_calls.ended_by IS 'Who ended them.';
COMMENT ON COLUMN rollup_calls.result IS 'Whether they reached their aim.';
COMMENT ON COLUMN rollup_calls.calls IS 'How many calls.';
COMMENT ON COLUMN rollup_calls.transferred IS 'How many of them were handed to somebody else.';
COMMENT ON COLUMN rollup_calls.booked IS 'How many of them made at least one appointment.';
COMMENT ON COLUMN rollup_calls.duration_s_sum IS 'Seconds of all of them whose length is known, whatever their connection.';
COMMENT ON COLUMN rollup_calls.duration_n IS 'How many of them have a known length.';

CREATE OR REPLACE VIEW rollup_analysis AS
SELECT
    bucket_start, provider, org, agent_id, direction, criterion, result,
    calls
FROM kept.rollup_analysis
WHERE bucket_start NOT IN (SELECT bucket_start FROM kept.rollup_changes WHERE rollup = 'analysis')
UNION ALL
SELECT
    bucket_start, provider, org, agent_id, direction, criterion, result,
    sum(calls)::BIGINT AS calls
FROM (
    SELECT
        bucket_start, provider, org, agent_id, direction, criterion, result,
        calls
    FROM kept.rollup_analysis
    WHERE bucket_start IN (SELECT bucket_start FROM kept.rollup_changes WHERE rollup = 'analysis')
    UNION ALL
    SELECT
        bucket_start, provider, org, agent_id, direction, label AS criterion, result,
        calls
    FROM kept.rollup_changes
    WHERE rollup = 'analysis'
)
GROUP BY bucket_start, provider, org, agent_id, direction, criterion, result
HAVING sum(calls) <> 0;

COMMENT ON VIEW rollup_analysis IS 'Judgements in calls that are not excluded, counted by 15 minutes.';
COMMENT ON COLUMN rollup_analysis.bucket_start IS 'Start of the 15 minutes in which the calls count, UTC.';
COMMENT ON COLUMN rollup_analysis.provider IS 'The platform that sent it.';
COMMENT ON COLUMN rollup_analysis.org IS 'The organisation it belongs to; empty where there is none.';
COMMENT ON COLUMN rollup_analysis.agent_id IS 'The calls'' agent.';
COMMENT ON COLUMN rollup_analysis.direction IS 'inbound, outbound or null.';
COMMENT ON COLUMN rollup_analysis.criterion IS 'What was judged.';
COMMENT ON COLUMN rollup_analysis.result IS 'The judgement.';
COMMENT ON COLUMN rollup_analysis.calls IS 'How many calls were judged so.';

CREATE OR REPLACE VIEW rollup_variables AS
SELECT
    bucket_start, provider, org, agent_id, direction, name,
    calls, collected, filled
FROM kept.rollup_variables
WHERE bucket_start NOT IN (SELECT bucket_start FROM kept.rollup_changes WHERE rollup = 'variables')
UNION ALL
SELECT
    bucket_start, provider, org, agent_id, direction, name,
    sum(calls)::BIGINT AS calls, sum(collected)::BIGINT AS collected, sum(filled)::BIGINT AS filled
FROM (
    SELECT
        bucket_start, provider, org, agent_id, direction, name,
        calls, collected, filled
    FROM kept.rollup_variables
    WHERE bucket_start IN (SELECT bucket_start FROM kept.rollup_changes WHERE rollup = 'variables')
    UNION ALL
    SELECT
        bucket_start, provider, org, agent_id, direction, label AS name,
        calls, collected, filled
    FROM kept.rollup_changes
    WHERE rollup = 'variables'
)
GROUP BY bucket_start, provider, org, agent_id, direction, name
HAVING sum(calls) <> 0;

COMMENT ON VIEW rollup_variables IS 'Variables of calls that are not excluded, counted by 15 minutes.';
COMMENT ON COLUMN rollup_variables.bucket_start IS 'Start of the 15 minutes in which the calls count, UTC.';
COMMENT ON COLUMN rollup_variables.provider IS 'The platform that sent it.';
COMMENT ON COLUMN rollup_variables.org IS 'The organisation it belongs to; empty where there is none.';
COMMENT ON COLUMN rollup_variables.agent_id IS 'The agent that was to collect it.';
COMMENT ON COLUMN rollup_variables.direction IS 'inbound, outbound or null.';
COMMENT ON COLUMN rollup_variables.name IS 'The variable.';
COMMENT ON COLUMN rollup_variables.calls IS 'How many calls name it.';
COMMENT ON COLUMN rollup_variables.collected IS 'In how many of them it was collected.';
COMMENT ON COLUMN rollup_variables.filled IS 'In how many of them its value is not empty (null, blank text, [] and {} are).';

CREATE OR REPLACE VIEW positions AS
SELECT stream, stream_id, position, updated_at
FROM kept.positions;

COMMENT ON VIEW positions IS 'How far each stream is applied; changes in the same transaction as the rows.';
COMMENT ON COLUMN positions.stream IS 'journal, kafka, or announced: how far what follows from kafka is published.';
COMMENT ON COLUMN positions.stream_id IS 'The journal''s id, or the topic''s id and partition.';
COMMENT ON COLUMN positions.position IS 'The last position of a journal, or the next offset of a partition.';
COMMENT ON COLUMN positions.updated_at IS 'When that was, UTC.';

CREATE OR REPLACE VIEW schema_version AS
SELECT version, made_by
FROM kept.schema_version;

COMMENT ON VIEW schema_version IS 'Which layout this store has.';
COMMENT ON COLUMN schema_version.version IS 'Number of the layout.';
COMMENT ON COLUMN schema_version.made_by IS 'Fingerprint of the settings and the code that decide what a call counts as.';

CREATE OR REPLACE VIEW schema_columns AS
SELECT "table", "column", type, comment
FROM kept.schema_columns;

COMMENT ON VIEW schema_columns IS 'Every public column and what it means.';
COMMENT ON COLUMN schema_columns."table" IS 'The table.';
COMMENT ON COLUMN schema_columns."column" IS 'The column.';
COMMENT ON COLUMN schema_columns.type IS 'Its type.';
COMMENT ON COLUMN schema_columns.comment IS 'What it means.';
