-- A database as a controller with schema 1 left it.
PRAGMA user_version = 1;
CREATE TABLE remuda_tables (name TEXT PRIMARY KEY) WITHOUT ROWID;
INSERT INTO remuda_tables VALUES ('ipython-tasks');
CREATE TABLE "ipython-tasks" (
            seq INTEGER PRIMARY KEY,
            msg_id TEXT NOT NULL UNIQUE,
            packer TEXT NOT NULL,
            queue TEXT NOT NULL,
            client_uuid TEXT,
            engine_uuid TEXT,
            label TEXT,
            submitted INTEGER,
            started INTEGER,
            completed INTEGER,
            received INTEGER,
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
CREATE INDEX "ipython-tasks_client_uuid" ON "ipython-tasks" (client_uuid);
CREATE INDEX "ipython-tasks_engine_uuid" ON "ipython-tasks" (engine_uuid);
CREATE INDEX "ipython-tasks_label" ON "ipython-tasks" (label) WHERE label IS NOT NULL;
INSERT INTO "ipython-tasks" (msg_id, packer, queue, client_uuid, engine_uuid, label, submitted, started, completed, received, resubmitted, header, metadata, content, result_header, result_metadata, result_content, buffers, result_buffers) VALUES
    ('done', 'json', 'task', 'client', 'e', NULL, 1795311439000001, 1795311439000010, 1795311439000020, 1795311439000030, NULL, '{"msg_id": "done", "msg_type": "apply_request", "session": "client", "date": "2026-11-22T01:37:19.000001Z"}', '{"label": null}', '{}', '{"msg_id": "r-done", "msg_type": "apply_reply", "date": "2026-11-22T01:37:20Z"}', '{"status": "ok", "engine": "e"}', '{"status": "ok"}', X'0100000000000000010000000000000007', X'0100000000000000010000000000000007');
INSERT INTO "ipython-tasks" (msg_id, packer, queue, client_uuid, engine_uuid, label, submitted, started, completed, received, resubmitted, header, metadata, content, result_header, result_metadata, result_content, buffers, result_buffers) VALUES
    ('failed', 'json', 'task', 'client', 'e', NULL, 1795311439000002, 1795311439000010, 1795311439000020, 1795311439000030, NULL, '{"msg_id": "failed", "msg_type": "apply_request", "session": "client", "date": "2026-11-22T01:37:19.000002Z"}', '{}', '{}', '{"msg_id": "r-failed", "msg_type": "apply_reply", "date": "2026-11-22T01:37:20Z"}', '{}', '{"status": "error", "ename": "E"}', X'0100000000000000010000000000000007', X'0100000000000000010000000000000007');
INSERT INTO "ipython-tasks" (msg_id, packer, queue, client_uuid, engine_uuid, label, submitted, started, completed, received, resubmitted, header, metadata, content, result_header, result_metadata, result_content, buffers, result_buffers) VALUES
    ('stopped', 'json', 'task', 'client', 'e', NULL, 1795311439000003, 1795311439000010, 1795311439000020, 1795311439000030, NULL, '{"msg_id": "stopped", "msg_type": "apply_request", "session": "client", "date": "2026-11-22T01:37:19.000003Z"}', '{}', '{}', '{"msg_id": "r-stopped", "msg_type": "apply_reply", "date": "2026-11-22T01:37:20Z"}', '{"status": "aborted"}', '{"status": "aborted"}', X'0100000000000000010000000000000007', X'0100000000000000010000000000000007');
INSERT INTO "ipython-tasks" (msg_id, packer, queue, client_uuid, engine_uuid, label, submitted, started, completed, received, resubmitted, header, metadata, content, result_header, result_metadata, result_content, buffers, result_buffers) VALUES
    ('open', 'json', 'task', 'client', 'e', NULL, 1795311439000004, NULL, NULL, NULL, NULL, '{"msg_id": "open", "msg_type": "apply_request", "session": "client", "date": "2026-11-22T01:37:19.000004Z"}', '{}', '{}', NULL, NULL, NULL, X'0100000000000000010000000000000007', NULL);
