-- A database as a controller with schema 2 left it.
PRAGMA user_version = 2;
CREATE TABLE remuda_tables (name TEXT PRIMARY KEY) WITHOUT ROWID;
INSERT INTO remuda_tables VALUES ('ipython-tasks');
CREATE TABLE "ipython-tasks" (
            seq INTEGER PRIMARY KEY,
            msg_id TEXT NOT NULL UNIQUE,
            packer TEXT NOT NULL,
            queue TEXT NOT NULL,
            state TEXT NOT NULL,
            client_uuid TEXT,
            engine_uuid TEXT,
            label TEXT,
            submitted INTEGER,
            started INTEGER,
            completed INTEGER,
            received INTEGER,
            arrived INTEGER NOT NULL,
            reply_to BLOB,
            tried TEXT,
            retries INTEGER,
            resubmitted TEXT,
            header NOT NULL,
            metadata NOT NULL,
            content NOT NULL,
            result_header,
            result_metadata,
            result_content,
            execute_input TEXT,
            execute_result,
            error,
            display_data,
            stdout TEXT NOT NULL DEFAULT '',
            stderr TEXT NOT NULL DEFAULT '',
            buffers BLOB,
            result_buffers BLOB
        );
CREATE INDEX "ipython-tasks_submitted" ON "ipython-tasks" (submitted);
CREATE INDEX "ipython-tasks_completed" ON "ipython-tasks" (completed);
CREATE INDEX "ipython-tasks_state_submitted" ON "ipython-tasks" (state, submitted);
CREATE INDEX "ipython-tasks_client_uuid_submitted" ON "ipython-tasks" (client_uuid, submitted);
CREATE INDEX "ipython-tasks_engine_uuid_submitted" ON "ipython-tasks" (engine_uuid, submitted);
CREATE INDEX "ipython-tasks_label_submitted" ON "ipython-tasks" (label, submitted) WHERE label IS NOT NULL;
CREATE INDEX "ipython-tasks_reply_to" ON "ipython-tasks" (seq) WHERE reply_to IS NOT NULL AND received IS NOT NULL;
INSERT INTO "ipython-tasks" (msg_id, packer, queue, state, client_uuid, engine_uuid, label, submitted, started, completed, received, arrived, reply_to, tried, retries, resubmitted, header, metadata, content, result_header, result_metadata, result_content, buffers, result_buffers) VALUES
    ('told', 'json', 'task', 'ok', 'client', 'e', NULL, 1795311439000001, 1795311439000011, 1795311439000021, 1795311439000031, 1795311439000006, NULL, NULL, 1, NULL, '{"msg_id": "told", "msg_type": "apply_request", "session": "client", "date": "2026-11-22T01:37:19.000001Z"}', '{}', '{}', '{"msg_id": "r-told", "msg_type": "apply_reply", "date": "2026-11-22T01:37:20Z"}', '{"status": "ok", "engine": "e"}', '{"status": "ok"}', X'0100000000000000010000000000000007', X'0100000000000000010000000000000007');
INSERT INTO "ipython-tasks" (msg_id, packer, queue, state, client_uuid, engine_uuid, label, submitted, started, completed, received, arrived, reply_to, tried, retries, resubmitted, header, metadata, content, result_header, result_metadata, result_content, buffers, result_buffers) VALUES
    ('ended', 'json', 'task', 'ok', 'client', 'e', NULL, 1795311439000002, 1795311439000012, 1795311439000022, 1795311439000032, 1795311439000007, X'00FF63', NULL, 1, NULL, '{"msg_id": "ended", "msg_type": "apply_request", "session": "client", "date": "2026-11-22T01:37:19.000002Z"}', '{}', '{}', '{"msg_id": "r-ended", "msg_type": "apply_reply", "date": "2026-11-22T01:37:20Z"}', '{"status": "ok", "engine": "e"}', '{"status": "ok"}', X'0100000000000000010000000000000007', X'0100000000000000010000000000000007');
INSERT INTO "ipython-tasks" (msg_id, packer, queue, state, client_uuid, engine_uuid, label, submitted, started, completed, received, arrived, reply_to, tried, retries, resubmitted, header, metadata, content, result_header, result_metadata, result_content, buffers, result_buffers) VALUES
    ('runs', 'json', 'task', 'running', 'client', 'e', NULL, 1795311439000003, NULL, NULL, NULL, 1795311439000008, X'00FF63', NULL, 1, NULL, '{"msg_id": "runs", "msg_type": "apply_request", "session": "client", "date": "2026-11-22T01:37:19.000003Z"}', '{}', '{}', NULL, NULL, NULL, X'0100000000000000010000000000000007', NULL);
INSERT INTO "ipython-tasks" (msg_id, packer, queue, state, client_uuid, engine_uuid, label, submitted, started, completed, received, arrived, reply_to, tried, retries, resubmitted, header, metadata, content, result_header, result_metadata, result_content, buffers, result_buffers) VALUES
    ('gone', 'json', 'task', 'lost', 'client', NULL, NULL, 1795311439000004, NULL, NULL, NULL, 1795311439000009, X'00FF63', NULL, 1, NULL, '{"msg_id": "gone", "msg_type": "apply_request", "session": "client", "date": "2026-11-22T01:37:19.000004Z"}', '{}', '{}', NULL, NULL, NULL, X'0100000000000000010000000000000007', NULL);
