PRAGMA application_id = 1701737071;
PRAGMA user_version = 1;
CREATE TABLE absence (
user_id TEXT NOT NULL,
since BIGINT NOT NULL,
run INTEGER NOT NULL,
PRIMARY KEY (user_id)
)
WITHOUT ROWID;
CREATE TABLE accepted (
user_id TEXT NOT NULL,
other_user_id TEXT NOT NULL,
at BIGINT NOT NULL,
run INTEGER NOT NULL,
PRIMARY KEY (user_id, other_user_id),
CHECK (user_id <= other_user_id)
)
WITHOUT ROWID;
CREATE TABLE audited (
face_token TEXT NOT NULL,
run INTEGER NOT NULL,
PRIMARY KEY (face_token)
)
WITHOUT ROWID;
CREATE TABLE compared_scan (
only INTEGER NOT NULL CHECK (only = 1),
people INTEGER NOT NULL,
PRIMARY KEY (only)
);
CREATE TABLE deletion (
face_token TEXT NOT NULL,
face_id INTEGER NOT NULL,
run INTEGER NOT NULL,
PRIMARY KEY (face_token),
FOREIGN KEY(face_id) REFERENCES face (face_id)
)
WITHOUT ROWID;
CREATE TABLE event (
event INTEGER NOT NULL,
at BIGINT NOT NULL,
kind TEXT NOT NULL,
run INTEGER NOT NULL,
face_id INTEGER NOT NULL,
face_token TEXT,
detail TEXT NOT NULL,
PRIMARY KEY (event),
FOREIGN KEY(run) REFERENCES run (run),
FOREIGN KEY(face_id) REFERENCES face (face_id)
);
CREATE TABLE face (
face_id INTEGER NOT NULL,
user_id TEXT NOT NULL,
sha256 BLOB NOT NULL,
status TEXT NOT NULL,
face_token TEXT,
attempts INTEGER NOT NULL,
first_attempt_at BIGINT,
code TEXT NOT NULL,
message TEXT NOT NULL,
request_id TEXT NOT NULL,
sent_sha256 BLOB,
prepared TEXT NOT NULL,
user_data TEXT NOT NULL,
multi_oriented_detection BOOLEAN NOT NULL,
expires FLOAT,
recheck BOOLEAN NOT NULL,
enrolled_at BIGINT,
run INTEGER NOT NULL,
refused_under TEXT,
former_token TEXT,
former_user_data TEXT,
time_used INTEGER,
PRIMARY KEY (face_id),
UNIQUE (user_id, sha256),
UNIQUE (face_token)
);
CREATE INDEX face_not_enrolled ON face (status) WHERE status != 'enrolled';
CREATE INDEX face_to_recheck ON face (face_id) WHERE recheck;
CREATE UNIQUE INDEX face_with_former ON face (former_token) WHERE former_token IS NOT NULL;
CREATE TRIGGER face_DELETE AFTER DELETE ON face
WHEN EXISTS (SELECT 1 FROM compared_scan)
AND NOT EXISTS (SELECT 1 FROM to_compare WHERE user_id = old.user_id)
BEGIN INSERT INTO to_compare VALUES (old.user_id); END;
CREATE TRIGGER face_INSERT AFTER INSERT ON face
WHEN EXISTS (SELECT 1 FROM compared_scan)
AND NOT EXISTS (SELECT 1 FROM to_compare WHERE user_id = new.user_id)
BEGIN INSERT INTO to_compare VALUES (new.user_id); END;
CREATE TRIGGER face_UPDATE AFTER UPDATE ON face
WHEN EXISTS (SELECT 1 FROM compared_scan)
AND NOT EXISTS (SELECT 1 FROM to_compare WHERE user_id = new.user_id)
BEGIN INSERT INTO to_compare VALUES (new.user_id); END;
CREATE TRIGGER face_token_DELETE AFTER DELETE ON face
WHEN old.face_token IS NOT NULL
BEGIN DELETE FROM audited WHERE face_token = old.face_token; END;
CREATE TRIGGER face_token_UPDATE AFTER UPDATE ON face
WHEN old.face_token IS NOT NULL AND old.face_token IS NOT new.face_token
BEGIN DELETE FROM audited WHERE face_token = old.face_token; END;
CREATE TABLE face_to_delete (
face_id INTEGER NOT NULL,
run INTEGER NOT NULL,
PRIMARY KEY (face_id),
FOREIGN KEY(face_id) REFERENCES face (face_id)
);
CREATE TABLE finding (
face_id INTEGER NOT NULL,
kind TEXT NOT NULL,
other_token TEXT NOT NULL,
other_user_id TEXT NOT NULL,
other_face_id INTEGER,
score FLOAT,
face_token TEXT,
at BIGINT NOT NULL,
run INTEGER NOT NULL,
PRIMARY KEY (face_id, kind, other_token),
FOREIGN KEY(face_id) REFERENCES face (face_id)
)
WITHOUT ROWID;
CREATE TABLE forgotten (
digest BLOB NOT NULL,
at BIGINT NOT NULL,
run INTEGER NOT NULL,
faces INTEGER NOT NULL,
wiped_at BIGINT,
lifted_at BIGINT,
lifted_run INTEGER,
PRIMARY KEY (digest)
)
WITHOUT ROWID;
CREATE TABLE library (
only INTEGER NOT NULL CHECK (only = 1),
host TEXT NOT NULL,
group_id TEXT NOT NULL,
add_time TEXT NOT NULL,
photo_root TEXT NOT NULL,
photo_root_named BOOLEAN NOT NULL,
began_empty BOOLEAN NOT NULL,
ceiling INTEGER,
lag FLOAT,
forget_key BLOB,
PRIMARY KEY (only)
);
CREATE TABLE photo (
path TEXT NOT NULL,
size BIGINT NOT NULL,
mtime_ns BIGINT NOT NULL,
ctime_ns BIGINT NOT NULL,
sha256 BLOB NOT NULL,
PRIMARY KEY (path)
)
WITHOUT ROWID;
CREATE TABLE raw_answer (
code TEXT NOT NULL,
number INTEGER NOT NULL,
http_status INTEGER NOT NULL,
raw TEXT NOT NULL,
at BIGINT NOT NULL,
run INTEGER NOT NULL,
PRIMARY KEY (code, number)
);
CREATE TABLE "row" (
user_id TEXT NOT NULL,
path TEXT NOT NULL,
user_data TEXT NOT NULL,
face_id INTEGER,
sha256 BLOB,
status TEXT,
code TEXT NOT NULL,
message TEXT NOT NULL,
run INTEGER NOT NULL,
PRIMARY KEY (user_id, path),
CHECK ((face_id IS NULL) <> (status IS NULL)),
FOREIGN KEY(face_id) REFERENCES face (face_id)
)
WITHOUT ROWID;
CREATE INDEX row_without_face ON "row" (status) WHERE face_id IS NULL;
CREATE TRIGGER row_DELETE AFTER DELETE ON row
WHEN EXISTS (SELECT 1 FROM compared_scan)
AND NOT EXISTS (SELECT 1 FROM to_compare WHERE user_id = old.user_id)
BEGIN INSERT INTO to_compare VALUES (old.user_id); END;
CREATE TRIGGER row_INSERT AFTER INSERT ON row
WHEN EXISTS (SELECT 1 FROM compared_scan)
AND NOT EXISTS (SELECT 1 FROM to_compare WHERE user_id = new.user_id)
BEGIN INSERT INTO to_compare VALUES (new.user_id); END;
CREATE TRIGGER row_UPDATE AFTER UPDATE ON row
WHEN EXISTS (SELECT 1 FROM compared_scan)
AND NOT EXISTS (SELECT 1 FROM to_compare WHERE user_id = new.user_id)
BEGIN INSERT INTO to_compare VALUES (new.user_id); END;
CREATE TABLE run (
run INTEGER NOT NULL,
started_at BIGINT NOT NULL,
host TEXT NOT NULL,
user TEXT NOT NULL,
pid INTEGER NOT NULL,
version TEXT NOT NULL,
manifest TEXT NOT NULL,
manifest_sha256 TEXT NOT NULL,
options JSON NOT NULL,
command TEXT NOT NULL,
endpoint TEXT NOT NULL,
timeout FLOAT NOT NULL,
send_as TEXT NOT NULL,
settle_after FLOAT,
scan_mark TEXT NOT NULL,
photo_root TEXT NOT NULL,
photo_root_named BOOLEAN NOT NULL,
files JSON NOT NULL,
alive_at BIGINT NOT NULL,
least_clock_offset FLOAT NOT NULL,
most_clock_offset FLOAT NOT NULL,
ended_at BIGINT,
exit_code INTEGER,
reason TEXT,
calls JSON,
rows JSON,
"limit" INTEGER,
pace JSON,
PRIMARY KEY (run)
);
CREATE TABLE scan_cache (
only INTEGER NOT NULL CHECK (only = 1),
fingerprint TEXT NOT NULL,
manifest TEXT NOT NULL,
parts INTEGER NOT NULL,
results_path TEXT,
results_size BIGINT,
results_mtime_ns BIGINT,
PRIMARY KEY (only)
);
CREATE TABLE scan_cache_part (
number INTEGER NOT NULL,
first_line INTEGER NOT NULL,
rows BLOB NOT NULL,
digest BLOB,
counts TEXT,
PRIMARY KEY (number)
);
CREATE TABLE surplus (
face_token TEXT NOT NULL,
face_id INTEGER NOT NULL,
found_at BIGINT NOT NULL,
run INTEGER NOT NULL,
PRIMARY KEY (face_token),
FOREIGN KEY(face_id) REFERENCES face (face_id)
);
CREATE TABLE to_compare (
user_id TEXT NOT NULL,
PRIMARY KEY (user_id)
)
WITHOUT ROWID;
