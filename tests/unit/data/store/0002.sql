BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0002');
CREATE TABLE attempts (
	experiment VARCHAR NOT NULL, 
	task INTEGER NOT NULL, 
	attempt INTEGER NOT NULL, 
	slot VARCHAR NOT NULL, 
	state VARCHAR NOT NULL, 
	reason TEXT, 
	exit_code INTEGER, 
	seconds FLOAT, 
	peak_memory BIGINT, 
	node VARCHAR, 
	started FLOAT, 
	ended FLOAT, 
	PRIMARY KEY (experiment, task, attempt, slot), 
	FOREIGN KEY(experiment) REFERENCES experiments (id) ON DELETE CASCADE
);
INSERT INTO "attempts" VALUES('0a1b2c3d',0,1,'0.0.0','COMPLETED',NULL,0,1.5,1048576,'node1',1.79521191399287390706e+09,1.79521191399289798741e+09);
INSERT INTO "attempts" VALUES('0a1b2c3d',1,1,'0.0.0','FAILED','exit code 3',3,1.5,1048576,'node1',1.79521191399290490145e+09,1795211913.99291);
CREATE TABLE experiments (
	id VARCHAR NOT NULL, 
	name VARCHAR NOT NULL, 
	message TEXT NOT NULL, 
	cluster VARCHAR NOT NULL, 
	created FLOAT NOT NULL, 
	script VARCHAR NOT NULL, 
	tasks INTEGER NOT NULL, 
	root VARCHAR NOT NULL, 
	lib VARCHAR NOT NULL, 
	axes JSON NOT NULL, 
	grid TEXT NOT NULL, 
	snapshot VARCHAR NOT NULL, 
	"commit" VARCHAR, 
	branch VARCHAR, 
	diff TEXT, 
	environment JSON NOT NULL, 
	"plan" JSON NOT NULL, 
	cancelled BOOLEAN NOT NULL, cluster_id VARCHAR DEFAULT '' NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "experiments" VALUES('0a1b2c3d','train','why?','local',1760000000.5,'train.py',3,'/c/experiments/0a1b2c3d','/c/lib/1234','["lr"]','params: {}','abababababababababababababababababababababababababababababababab',NULL,NULL,NULL,'{"id": "e", "python": "/usr/bin/python3", "version": "3.11.2", "packages": {"numpy": "2.0"}}','{"run": null, "throttle": 3}',0,'');
CREATE TABLE journals (
	experiment VARCHAR NOT NULL, 
	name VARCHAR NOT NULL, 
	"offset" BIGINT NOT NULL, 
	node VARCHAR, 
	PRIMARY KEY (experiment, name), 
	FOREIGN KEY(experiment) REFERENCES experiments (id) ON DELETE CASCADE
);
INSERT INTO "journals" VALUES('0a1b2c3d','0.0.0.jsonl',678,'node1');
CREATE TABLE series (
	id INTEGER NOT NULL, 
	experiment VARCHAR NOT NULL, 
	task INTEGER NOT NULL, 
	attempt INTEGER NOT NULL, 
	time FLOAT NOT NULL, 
	step FLOAT, 
	"values" JSON NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(experiment) REFERENCES experiments (id) ON DELETE CASCADE
);
INSERT INTO "series" VALUES(1,'0a1b2c3d',0,1,1.79521191399288511272e+09,NULL,'{"loss": 0.5}');
INSERT INTO "series" VALUES(2,'0a1b2c3d',0,1,1.7952119139928920269e+09,NULL,'{"loss": 0.25}');
CREATE TABLE submissions (
	experiment VARCHAR NOT NULL, 
	round INTEGER NOT NULL, 
	chunk INTEGER NOT NULL, 
	job_name VARCHAR NOT NULL, 
	job_id BIGINT, 
	"offset" INTEGER NOT NULL, 
	size INTEGER NOT NULL, 
	PRIMARY KEY (experiment, round, chunk), 
	FOREIGN KEY(experiment) REFERENCES experiments (id) ON DELETE CASCADE, 
	UNIQUE (job_name)
);
INSERT INTO "submissions" VALUES('0a1b2c3d',0,0,'train-0a1b2c3d-0.0',17,0,3);
CREATE TABLE tasks (
	experiment VARCHAR NOT NULL, 
	"index" INTEGER NOT NULL, 
	point VARCHAR NOT NULL, 
	params JSON NOT NULL, 
	state VARCHAR NOT NULL, 
	reason TEXT, 
	exit_code INTEGER, 
	seconds FLOAT, 
	peak_memory BIGINT, 
	node VARCHAR, 
	attempt INTEGER NOT NULL, 
	result JSON, 
	slot VARCHAR, 
	log_start BIGINT, 
	log_end BIGINT, 
	PRIMARY KEY (experiment, "index"), 
	FOREIGN KEY(experiment) REFERENCES experiments (id) ON DELETE CASCADE
);
INSERT INTO "tasks" VALUES('0a1b2c3d',0,'0000000000000000000000000000000000000000000000000000000000000000','{"lr": 0.0}','COMPLETED',NULL,0,1.5,1048576,'node1',1,'{"loss": 0.25}','0.0.0',0,10);
INSERT INTO "tasks" VALUES('0a1b2c3d',1,'0000000000000000000000000000000000000000000000000000000000000001','{"lr": 0.1}','FAILED','exit code 3',3,1.5,1048576,'node1',1,'null','0.0.0',0,10);
INSERT INTO "tasks" VALUES('0a1b2c3d',2,'0000000000000000000000000000000000000000000000000000000000000002','{"lr": 0.2}','PENDING',NULL,NULL,NULL,NULL,NULL,0,NULL,NULL,NULL,NULL);
CREATE INDEX ix_experiments_created ON experiments (created);
CREATE INDEX ix_experiments_name ON experiments (name);
CREATE INDEX series_by_task ON series (experiment, task);
CREATE INDEX tasks_by_state ON tasks (experiment, state);
COMMIT;
