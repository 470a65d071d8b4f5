PRAGMA application_id=1701737071;
PRAGMA user_version=1;
BEGIN TRANSACTION;
CREATE TABLE absence (
	user_id TEXT NOT NULL, 
	since BIGINT NOT NULL, 
	run INTEGER NOT NULL, 
	PRIMARY KEY (user_id)
)
 WITHOUT ROWID

;
INSERT INTO "absence" VALUES('p6',1796064034194,3);
CREATE TABLE accepted (
	user_id TEXT NOT NULL, 
	other_user_id TEXT NOT NULL, 
	at BIGINT NOT NULL, 
	run INTEGER NOT NULL, 
	PRIMARY KEY (user_id, other_user_id), 
	CHECK (user_id <= other_user_id)
)
 WITHOUT ROWID

;
INSERT INTO "accepted" VALUES('p0','p1',1796064037109,5);
CREATE TABLE audited (
	face_token TEXT NOT NULL, 
	run INTEGER NOT NULL, 
	PRIMARY KEY (face_token)
)
 WITHOUT ROWID

;
INSERT INTO "audited" VALUES('5280370dd0e2232c7e48a2b54894d1af',2);
INSERT INTO "audited" VALUES('561229c4bcfd310cce6f972f48f95b66',2);
INSERT INTO "audited" VALUES('763d1d8e1df8d8e861b2f7dfb4b127cc',2);
INSERT INTO "audited" VALUES('7bf2c40562c1958347f4227a8d7fba43',2);
INSERT INTO "audited" VALUES('c4f14ce06cabd8637ff4e2483536c0d8',2);
INSERT INTO "audited" VALUES('e05a8b58523f6b7568b6c823d69bc0b6',2);
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
 WITHOUT ROWID

;
INSERT INTO "deletion" VALUES('00000000000000000000000000000002',6,2);
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
INSERT INTO "event" VALUES(1,1796064030199,'enrolled',1,2,'0e859cdd21d82df32a9cf277f36c75dc','');
INSERT INTO "event" VALUES(2,1796064030199,'enrolled',1,3,'5280370dd0e2232c7e48a2b54894d1af','');
INSERT INTO "event" VALUES(4,1796064030205,'enrolled',1,4,'e05a8b58523f6b7568b6c823d69bc0b6','');
INSERT INTO "event" VALUES(5,1796064030220,'enrolled',1,7,'763d1d8e1df8d8e861b2f7dfb4b127cc','');
INSERT INTO "event" VALUES(6,1796064030240,'enrolled',1,6,'7bf2c40562c1958347f4227a8d7fba43','');
INSERT INTO "event" VALUES(7,1796064030240,'enrolled',1,5,'561229c4bcfd310cce6f972f48f95b66','');
INSERT INTO "event" VALUES(8,1796064030240,'enrolled',1,8,'c4f14ce06cabd8637ff4e2483536c0d8','');
INSERT INTO "event" VALUES(9,1796064034376,'enrolled',3,10,'6fabf24bdfe43e9884e00b41acb99ad7','');
INSERT INTO "event" VALUES(10,1796064034377,'superseded',3,2,'0e859cdd21d82df32a9cf277f36c75dc','');
INSERT INTO "event" VALUES(11,1796064034394,'removing',3,2,'0e859cdd21d82df32a9cf277f36c75dc','');
INSERT INTO "event" VALUES(12,1796064034402,'removed',3,2,'0e859cdd21d82df32a9cf277f36c75dc','');
INSERT INTO "event" VALUES(13,1796064037109,'accepted',5,6,NULL,'p0');
INSERT INTO "event" VALUES(14,1796064037109,'accepted',5,3,NULL,'p1');
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
INSERT INTO "face" VALUES(2,'p7',X'DDB4C2B59017CDF47334E823963A515E3ECB6ED6D0F24FA783E6ACA4FB3FFBD9','removed',NULL,1,1796064029284,'','','248e00348720ff1adc29b2ce96b43bb5',NULL,'','Person 7',0,NULL,0,NULL,3,NULL,NULL,NULL,451);
INSERT INTO "face" VALUES(3,'p0',X'F4EFA28DB437C663EE796173DC329A5690A38B8F649234EF5D3D3D490C521D44','enrolled','5280370dd0e2232c7e48a2b54894d1af',1,1796064029284,'','','dbf38f58dbf3d59faaf380cea5933d4c',NULL,'','Person 0',0,NULL,0,1796064030199,1,NULL,NULL,NULL,18);
INSERT INTO "face" VALUES(4,'p3',X'0EF5268E1AD65DE229783796D566169A324BA5D3C5EABAA885272B45F040AB6E','enrolled','e05a8b58523f6b7568b6c823d69bc0b6',1,1796064029284,'','','08a6034c5a9d6faf9fdec93faccf0db9',NULL,'','Person 3',0,NULL,0,1796064030205,1,NULL,NULL,NULL,21);
INSERT INTO "face" VALUES(5,'p2',X'E7DB723BAEC63144D712C87AB81BA3CB63EC2B393A9F174815A8E4C470E6B725','enrolled','561229c4bcfd310cce6f972f48f95b66',1,1796064029540,'','','be463fe44e6e76c86130c56f87f142c9',NULL,'','Person 2',0,NULL,0,1796064030240,1,NULL,NULL,NULL,30);
INSERT INTO "face" VALUES(6,'p1',X'FA231B071CD8FAC6357E663E613CF20BB7977BE2E9FF0035C5055CAF34C21360','enrolled','7bf2c40562c1958347f4227a8d7fba43',1,1796064029540,'','','ce73f4a25c61f87426d29623d1c5f104',NULL,'','Person 1',0,NULL,0,1796064030240,1,NULL,NULL,NULL,32);
INSERT INTO "face" VALUES(7,'p4',X'0EF5268E1AD65DE229783796D566169A324BA5D3C5EABAA885272B45F040AB6E','enrolled','763d1d8e1df8d8e861b2f7dfb4b127cc',1,1796064029540,'','','d39c6b6d8d75801f4fae271cc8aca241',NULL,'','Person 4',0,NULL,0,1796064030220,1,NULL,NULL,NULL,5);
INSERT INTO "face" VALUES(8,'p6',X'124BF99B84DC1D770525788E63C0667FB0A8EF3213BDA6B7E6AD89E91F0A38C3','enrolled','c4f14ce06cabd8637ff4e2483536c0d8',1,1796064029540,'','','fbb1c0a9cb0cb4568f37ceb625941ad4',NULL,'','Person 6',0,NULL,0,1796064030240,1,NULL,NULL,NULL,24);
INSERT INTO "face" VALUES(9,'p8',X'6E82D6959953A08C3BE24ADAF4BA75FB4B38D3FCADB5D0C84F70BDBEFD7E36AA','rejected',NULL,1,1796064030199,'NO_FACE_FOUND','NO_FACE_FOUND','1829ae309e529f028e4c6295a19611f5',NULL,'','Grey',0,NULL,0,NULL,1,NULL,NULL,NULL,32);
INSERT INTO "face" VALUES(10,'p7',X'01D3B9D88C38210E67431CBDE7FCE01FC07AEE0F6641C9880FD911F5EEA965DA','enrolled','6fabf24bdfe43e9884e00b41acb99ad7',1,1796064034360,'','','05ed80c24f35c0eb191b0f6cfd87a150',NULL,'','Person 7',0,NULL,0,1796064034376,3,NULL,NULL,NULL,7);
CREATE TABLE face_to_delete (
	face_id INTEGER NOT NULL, 
	run INTEGER NOT NULL, 
	PRIMARY KEY (face_id), 
	FOREIGN KEY(face_id) REFERENCES face (face_id)
);
INSERT INTO "face_to_delete" VALUES(5,2);
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
 WITHOUT ROWID

;
INSERT INTO "finding" VALUES(4,'lookalike','763d1d8e1df8d8e861b2f7dfb4b127cc','p4',7,100.0,'e05a8b58523f6b7568b6c823d69bc0b6',1796064031994,2);
INSERT INTO "finding" VALUES(7,'lookalike','e05a8b58523f6b7568b6c823d69bc0b6','p3',4,100.0,'763d1d8e1df8d8e861b2f7dfb4b127cc',1796064031997,2);
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
 WITHOUT ROWID

;
INSERT INTO "forgotten" VALUES(X'8CAE47851D7C28B067E7EAE9B5AC261976001B8BB0D091ED88210E11FB7F30F2',1796064035735,4,1,1796064035855,NULL,NULL);
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
INSERT INTO "library" VALUES(1,'127.0.0.1','staff','2026-11-30T18:40:24.275Z','/archive',0,1,NULL,NULL,X'3C2653450C6E20EBCE34BC87058D3EC9E75360C8977F715248166A4EABC69EB5');
CREATE TABLE photo (
	path TEXT NOT NULL, 
	size BIGINT NOT NULL, 
	mtime_ns BIGINT NOT NULL, 
	ctime_ns BIGINT NOT NULL, 
	sha256 BLOB NOT NULL, 
	PRIMARY KEY (path)
)
 WITHOUT ROWID

;
INSERT INTO "photo" VALUES('/archive/0.jpg',6727,1790000000000000000,1796064024247186309,X'F4EFA28DB437C663EE796173DC329A5690A38B8F649234EF5D3D3D490C521D44');
INSERT INTO "photo" VALUES('/archive/1.jpg',6211,1790000000000000000,1796064024247521837,X'FA231B071CD8FAC6357E663E613CF20BB7977BE2E9FF0035C5055CAF34C21360');
INSERT INTO "photo" VALUES('/archive/2.jpg',6073,1790000000000000000,1796064024247625211,X'E7DB723BAEC63144D712C87AB81BA3CB63EC2B393A9F174815A8E4C470E6B725');
INSERT INTO "photo" VALUES('/archive/3.jpg',5325,1790000000000000000,1796064024247711659,X'0EF5268E1AD65DE229783796D566169A324BA5D3C5EABAA885272B45F040AB6E');
INSERT INTO "photo" VALUES('/archive/4.jpg',5325,1796064024275829254,1796064024275829254,X'0EF5268E1AD65DE229783796D566169A324BA5D3C5EABAA885272B45F040AB6E');
INSERT INTO "photo" VALUES('/archive/6.jpg',6102,1790000000000000000,1796064024247961881,X'124BF99B84DC1D770525788E63C0667FB0A8EF3213BDA6B7E6AD89E91F0A38C3');
INSERT INTO "photo" VALUES('/archive/7.jpg',6406,1796064032060795511,1796064032060795511,X'01D3B9D88C38210E67431CBDE7FCE01FC07AEE0F6641C9880FD911F5EEA965DA');
INSERT INTO "photo" VALUES('/archive/grey.png',154,1796064024248503696,1796064024248503696,X'6E82D6959953A08C3BE24ADAF4BA75FB4B38D3FCADB5D0C84F70BDBEFD7E36AA');
CREATE TABLE raw_answer (
	code TEXT NOT NULL, 
	number INTEGER NOT NULL, 
	http_status INTEGER NOT NULL, 
	raw TEXT NOT NULL, 
	at BIGINT NOT NULL, 
	run INTEGER NOT NULL, 
	PRIMARY KEY (code, number)
);
INSERT INTO "raw_answer" VALUES('HTTP_502',1,502,'<html>',1790000000000,1);
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
 WITHOUT ROWID

;
INSERT INTO "row" VALUES('p0','/archive/0.jpg','Person 0',3,X'F4EFA28DB437C663EE796173DC329A5690A38B8F649234EF5D3D3D490C521D44',NULL,'','',1);
INSERT INTO "row" VALUES('p1','/archive/1.jpg','Person 1',6,X'FA231B071CD8FAC6357E663E613CF20BB7977BE2E9FF0035C5055CAF34C21360',NULL,'','',1);
INSERT INTO "row" VALUES('p2','/archive/2.jpg','Person 2',5,X'E7DB723BAEC63144D712C87AB81BA3CB63EC2B393A9F174815A8E4C470E6B725',NULL,'','',1);
INSERT INTO "row" VALUES('p3','/archive/3.jpg','Person 3',4,X'0EF5268E1AD65DE229783796D566169A324BA5D3C5EABAA885272B45F040AB6E',NULL,'','',1);
INSERT INTO "row" VALUES('p4','/archive/4.jpg','Person 4',7,X'0EF5268E1AD65DE229783796D566169A324BA5D3C5EABAA885272B45F040AB6E',NULL,'','',1);
INSERT INTO "row" VALUES('p6','/archive/6.jpg','Person 6',8,X'124BF99B84DC1D770525788E63C0667FB0A8EF3213BDA6B7E6AD89E91F0A38C3',NULL,'','',1);
INSERT INTO "row" VALUES('p7','/archive/7.jpg','Person 7',10,X'01D3B9D88C38210E67431CBDE7FCE01FC07AEE0F6641C9880FD911F5EEA965DA',NULL,'','',3);
INSERT INTO "row" VALUES('p8','/archive/grey.png','Grey',9,X'6E82D6959953A08C3BE24ADAF4BA75FB4B38D3FCADB5D0C84F70BDBEFD7E36AA',NULL,'','',1);
INSERT INTO "row" VALUES('p9','/archive/none.jpg','Gone',NULL,NULL,'failed','PHOTO_MISSING','There is no photo at this path. Check the path.',1);
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
INSERT INTO "run" VALUES(1,1796064029187,'example','somebody',11966,'1.0.0','/archive/staff.csv','a3bab34456eabc17ccaf7436c1ba3a748fd6e0837d95039bed0518737676a757','{"command": "run", "group_id": "staff", "endpoint": "http://127.0.0.1:80", "images": "", "max_in_flight": "auto", "rate": null, "timeout": 60.0, "settle_after": 10.0, "attempts": 5, "multi_oriented_detection": false, "send_as": "file", "preparation": {"max_side": 4096, "max_bytes": 2000000, "max_pixels": 100000000, "convert": true, "accept_truncated": false, "precheck": "off", "min_face": 0, "multi_oriented_detection": false, "heif": true}, "lookalikes": "off", "limit": null, "max_duration": null, "sample": null, "retry": [], "on_code": {}, "checksum": false}','run','http://127.0.0.1:80',60.0,'file',10.0,'f5d1f909fa7d1c8c4c5ad1b2943ced72.a3bab34456eabc17ccaf7436c1ba3a748fd6e0837d95039bed0518737676a757','/archive',0,'{}',1796064030284,3.55646610260009765625e-01,4.19709444046020507812e-01,1796064030284,1,'','{"group_list": 1, "list": 1, "add": 9}','{"enrolled": 8, "failed": 1, "rejected": 1}',7,'{"limit": 4, "in_flight": 4, "ceiling": null, "spacing": null, "calls": 2, "refused": 0, "waits_for": "the network", "course": [[0.5, 2.7, 2, 0], [0.8, 4.0, 2, 0]]}');
INSERT INTO "run" VALUES(2,1796064031905,'example','somebody',14291,'1.0.0','','','{"command": "audit", "sample": null, "seed": 0, "again": false, "audit_run": null, "user_ids": "", "score": 85.0, "unlike": 60.0, "group_id": "staff", "endpoint": "http://127.0.0.1:80", "timeout": 60.0, "send_as": "file"}','audit','http://127.0.0.1:80',60.0,'file',NULL,'','',0,'{}',1796064032026,-3.94072771072387695312e-01,-3.94072771072387695312e-01,1796064032026,1,'','{"group_list": 1, "search": 8}','{}',0,NULL);
INSERT INTO "run" VALUES(3,1796064034256,'example','somebody',14312,'1.0.0','/archive/staff.csv','f519f94ffd892f9c816fcca12bc0069fff39fb7a68f9b18bf6d07f7f9726bed1','{"command": "sync", "group_id": "staff", "endpoint": "http://127.0.0.1:80", "images": "", "max_in_flight": "auto", "rate": null, "timeout": 60.0, "settle_after": 10.0, "attempts": 5, "multi_oriented_detection": false, "send_as": "file", "preparation": {"max_side": 4096, "max_bytes": 2000000, "max_pixels": 100000000, "convert": true, "accept_truncated": false, "precheck": "off", "min_face": 0, "multi_oriented_detection": false, "heif": true}, "lookalikes": "off", "limit": null, "max_duration": null, "sample": null, "retry": [], "on_code": {}, "checksum": false, "max_removals": "100%", "max_changes": "100%", "max_missing": "100%", "grace": 2.0}','sync','http://127.0.0.1:80',60.0,'file',10.0,'f5d1f909fa7d1c8c4c5ad1b2943ced72.f519f94ffd892f9c816fcca12bc0069fff39fb7a68f9b18bf6d07f7f9726bed1','/archive',0,'{}',1796064034456,1.91587209701538085937e-01,2.53075838088989257812e-01,1796064034456,0,'','{"group_list": 1, "list": 1, "add": 1, "delete": 1}','{"enrolled": 7, "rejected": 1, "failed": 1}',4,'{"limit": 4, "in_flight": 0, "ceiling": null, "spacing": null, "calls": 1, "refused": 0, "waits_for": "the manifest", "course": [[0.0, 0.0, 1, 0]]}');
INSERT INTO "run" VALUES(4,1796064035735,'example','somebody',14527,'1.0.0','','','{"command": "forget", "group_id": "staff", "endpoint": "http://127.0.0.1:80", "timeout": 60.0, "send_as": "file"}','forget','http://127.0.0.1:80',60.0,'file',NULL,'','',0,'{}',1796064035869,-2.12239980697631835937e-01,-2.12239980697631835937e-01,1796064035869,0,'','{"group_list": 1, "list": 1, "delete": 1}','{}',0,NULL);
INSERT INTO "run" VALUES(5,1796064037093,'example','somebody',14625,'1.0.0','','','{"command": "audit", "sample": null, "seed": 0, "again": false, "audit_run": null, "user_ids": "", "score": 85.0, "unlike": 60.0, "group_id": "staff", "endpoint": "http://127.0.0.1:80", "timeout": 60.0, "send_as": "file"}','audit','http://127.0.0.1:80',60.0,'file',NULL,'','',0,'{}',1796064037116,-2.12239980697631835937e-01,-2.12239980697631835937e-01,1796064037116,0,'','{}','{}',0,NULL);
INSERT INTO "run" VALUES(6,1796064038952,'example','somebody',14692,'1.0.0','/archive/staff.csv','50251cb42a249804e06666b4ff33397ac1d799fb6cac49eaaa4a23ff15141607','{"command": "run", "group_id": "staff", "endpoint": "http://127.0.0.1:80", "images": "", "max_in_flight": "auto", "rate": null, "timeout": 60.0, "settle_after": 10.0, "attempts": 5, "multi_oriented_detection": false, "send_as": "file", "preparation": {"max_side": 4096, "max_bytes": 2000000, "max_pixels": 100000000, "convert": true, "accept_truncated": false, "precheck": "off", "min_face": 0, "multi_oriented_detection": false, "heif": true}, "lookalikes": "off", "limit": null, "max_duration": null, "sample": null, "retry": [], "on_code": {}, "checksum": false}','run','http://127.0.0.1:80',60.0,'file',10.0,'502c452a3589c7a60e6ec10d1870cf70.50251cb42a249804e06666b4ff33397ac1d799fb6cac49eaaa4a23ff15141607','/archive',0,'{}',1796064039094,-4.28313016891479492187e-01,8.8713169097900390625e-03,1796064039094,1,'','{"group_list": 1, "list": 1}','{"enrolled": 6, "rejected": 1, "failed": 1}',4,'{"limit": 4, "in_flight": 0, "ceiling": null, "spacing": null, "calls": 1, "refused": 0, "waits_for": "the manifest", "course": [[0.0, 0.0, 1, 0]]}');
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
INSERT INTO "scan_cache" VALUES(1,'502c452a3589c7a60e6ec10d1870cf70.50251cb42a249804e06666b4ff33397ac1d799fb6cac49eaaa4a23ff15141607','[["1.0.0", 6, "50251cb42a249804e06666b4ff33397ac1d799fb6cac49eaaa4a23ff15141607", {"columns": {}, "encoding": null, "sheet": null, "header_row": null, "delimiter": null, "photo": null, "id_from": []}], "{\"sha256\": \"50251cb42a249804e06666b4ff33397ac1d799fb6cac49eaaa4a23ff15141607\", \"encoding\": \"utf-8\", \"encoding_was_guessed\": false, \"bom\": false, \"delimiter\": \",\", \"newline\": \"\\n\", \"header\": [\"user_id\", \"user_data\", \"image\"], \"columns\": {\"user_id\": \"user_id\", \"user_data\": \"user_data\", \"image\": \"image\"}, \"is_results\": false, \"_notes\": [], \"rows_at_most\": 8, \"_codec\": \"utf-8\", \"_header_record\": 0, \"templates\": {}, \"photo\": null, \"_lines\": [[], [], 0], \"_orphans\": [], \"_heavy\": []}"]',1,'/archive/staff.results.csv',1467,1796064039088482710);
CREATE TABLE scan_cache_part (
	number INTEGER NOT NULL, 
	first_line INTEGER NOT NULL, 
	rows BLOB NOT NULL, 
	digest BLOB, 
	counts TEXT, 
	PRIMARY KEY (number)
);
INSERT INTO "scan_cache_part" VALUES(0,2,X'7801358E3B0AC3301005AFF250BD18FD122527709B5EB8148614B270AADC3EF2CB6E330C0B6FD85ABD2008A22009B2E026B80BCA26A86E7827702390914C64260BF9209F8E8B573B3F470777EA5CABB3A1CE923A7BEAACAE67FB5EDDF5E8ED5FF6CB7BECD72998449364924D8AC93E3BCBE81CF6D9E27D7EEAB71FA8C23E56',NULL,NULL);
CREATE TABLE surplus (
	face_token TEXT NOT NULL, 
	face_id INTEGER NOT NULL, 
	found_at BIGINT NOT NULL, 
	run INTEGER NOT NULL, 
	PRIMARY KEY (face_token), 
	FOREIGN KEY(face_id) REFERENCES face (face_id)
);
INSERT INTO "surplus" VALUES('00000000000000000000000000000001',3,1790000000000,2);
CREATE TABLE to_compare (
	user_id TEXT NOT NULL, 
	PRIMARY KEY (user_id)
)
 WITHOUT ROWID

;
INSERT INTO "to_compare" VALUES('p3');
CREATE INDEX face_not_enrolled ON face (status) WHERE status != 'enrolled';
CREATE UNIQUE INDEX face_with_former ON face (former_token) WHERE former_token IS NOT NULL;
CREATE INDEX face_to_recheck ON face (face_id) WHERE recheck;
CREATE INDEX row_without_face ON "row" (status) WHERE face_id IS NULL;
CREATE TRIGGER face_INSERT AFTER INSERT ON face
WHEN EXISTS (SELECT 1 FROM compared_scan)
AND NOT EXISTS (SELECT 1 FROM to_compare WHERE user_id = new.user_id)
BEGIN INSERT INTO to_compare VALUES (new.user_id); END;
CREATE TRIGGER face_UPDATE AFTER UPDATE ON face
WHEN EXISTS (SELECT 1 FROM compared_scan)
AND NOT EXISTS (SELECT 1 FROM to_compare WHERE user_id = new.user_id)
BEGIN INSERT INTO to_compare VALUES (new.user_id); END;
CREATE TRIGGER face_DELETE AFTER DELETE ON face
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
CREATE TRIGGER row_DELETE AFTER DELETE ON row
WHEN EXISTS (SELECT 1 FROM compared_scan)
AND NOT EXISTS (SELECT 1 FROM to_compare WHERE user_id = old.user_id)
BEGIN INSERT INTO to_compare VALUES (old.user_id); END;
CREATE TRIGGER face_token_UPDATE AFTER UPDATE ON face
WHEN old.face_token IS NOT NULL AND old.face_token IS NOT new.face_token
BEGIN DELETE FROM audited WHERE face_token = old.face_token; END;
CREATE TRIGGER face_token_DELETE AFTER DELETE ON face
WHEN old.face_token IS NOT NULL 
BEGIN DELETE FROM audited WHERE face_token = old.face_token; END;
COMMIT;
