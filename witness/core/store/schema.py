"""The database's shape: created by `witness init`, migrated in order, never guessed.

`PRAGMA user_version` counts the migrations applied. Each is a script that runs in one transaction.
Triggers keep rule 5 of DESIGN.md even against the operator's own SQL: logs and heads are not deleted, and a
head never shrinks.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from witness.core.store.base import MissingStore, StoreError, UnknownSchema

APPLICATION_ID = 0x77746E73
"""SQLite's application_id of our databases: "wtns"."""

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE identity (
        only INTEGER PRIMARY KEY CHECK (only = 1),
        name TEXT NOT NULL,
        identity TEXT NOT NULL,
        created INTEGER NOT NULL
    ) STRICT;

    CREATE TABLE logs (
        id INTEGER PRIMARY KEY,
        origin TEXT NOT NULL UNIQUE,
        origin_hash BLOB NOT NULL UNIQUE CHECK (length(origin_hash) = 32),
        disabled INTEGER NOT NULL DEFAULT 0 CHECK (disabled IN (0, 1)),
        feeder TEXT NOT NULL DEFAULT 'none',
        url TEXT,
        interval REAL,
        qpd INTEGER,
        contact TEXT,
        source TEXT NOT NULL,
        added INTEGER NOT NULL,
        change INTEGER NOT NULL UNIQUE
    ) STRICT;

    CREATE TABLE log_keys (
        id INTEGER PRIMARY KEY,
        log_id INTEGER NOT NULL REFERENCES logs (id),
        vkey TEXT NOT NULL,
        source TEXT NOT NULL,
        added INTEGER NOT NULL,
        UNIQUE (log_id, vkey)
    ) STRICT;

    CREATE TABLE heads (
        log_id INTEGER PRIMARY KEY REFERENCES logs (id),
        size INTEGER NOT NULL CHECK (size >= 0),
        root BLOB NOT NULL CHECK (length(root) = 32),
        timestamp INTEGER NOT NULL CHECK (timestamp > 0),
        note BLOB NOT NULL,
        cosignatures BLOB NOT NULL
    ) STRICT;

    CREATE TABLE contradictions (
        id INTEGER PRIMARY KEY,
        log_id INTEGER NOT NULL REFERENCES logs (id),
        kind TEXT NOT NULL,
        seen INTEGER NOT NULL,
        size INTEGER NOT NULL,
        stored BLOB NOT NULL,
        offered BLOB NOT NULL,
        proof BLOB NOT NULL,
        digest BLOB NOT NULL UNIQUE
    ) STRICT;
    CREATE INDEX contradictions_by_log ON contradictions (log_id);

    CREATE TRIGGER logs_stay BEFORE DELETE ON logs
    BEGIN SELECT RAISE(ABORT, 'logs are never deleted: disable the log'); END;
    CREATE TRIGGER heads_stay BEFORE DELETE ON heads
    BEGIN SELECT RAISE(ABORT, 'heads are never deleted'); END;
    CREATE TRIGGER heads_grow BEFORE UPDATE ON heads
    WHEN NEW.size < OLD.size OR NEW.timestamp < OLD.timestamp OR NEW.log_id <> OLD.log_id
        OR (NEW.size = OLD.size AND NEW.root <> OLD.root)
    BEGIN SELECT RAISE(ABORT, 'a head never goes back'); END;
    CREATE TRIGGER contradictions_stay BEFORE DELETE ON contradictions
    BEGIN SELECT RAISE(ABORT, 'evidence is never deleted'); END;
    """,
    """
    CREATE TABLE facts (
        name TEXT PRIMARY KEY,
        value TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE alarms (
        id INTEGER PRIMARY KEY,
        kind TEXT NOT NULL,
        origin TEXT NOT NULL DEFAULT '',
        raised INTEGER NOT NULL,
        have INTEGER,
        seen INTEGER,
        root BLOB,
        stamp INTEGER NOT NULL DEFAULT 0,
        source TEXT NOT NULL,
        detail TEXT NOT NULL DEFAULT '',
        note BLOB,
        settled INTEGER,
        how TEXT
    ) STRICT;
    CREATE UNIQUE INDEX alarms_active ON alarms (kind, origin) WHERE settled IS NULL;
    CREATE TRIGGER alarms_stay BEFORE DELETE ON alarms
    BEGIN SELECT RAISE(ABORT, 'alarms are settled, never deleted'); END;
    CREATE TRIGGER alarms_settle_once BEFORE UPDATE ON alarms WHEN OLD.settled IS NOT NULL
    BEGIN SELECT RAISE(ABORT, 'a settled alarm stays as it is'); END;

    CREATE TABLE audit (
        number INTEGER PRIMARY KEY,
        record BLOB NOT NULL,
        mac BLOB NOT NULL
    ) STRICT;
    CREATE TRIGGER audit_stays BEFORE DELETE ON audit
    BEGIN SELECT RAISE(ABORT, 'the record is append-only'); END;
    CREATE TRIGGER audit_stands BEFORE UPDATE ON audit
    BEGIN SELECT RAISE(ABORT, 'the record is append-only'); END;

    CREATE TABLE audit_inbox (
        id INTEGER PRIMARY KEY,
        seen INTEGER NOT NULL,
        kind TEXT NOT NULL,
        facts TEXT NOT NULL
    ) STRICT;

    CREATE TABLE recent_heads (
        log_id INTEGER NOT NULL REFERENCES logs (id),
        size INTEGER NOT NULL,
        root BLOB NOT NULL,
        timestamp INTEGER NOT NULL,
        note BLOB NOT NULL,
        PRIMARY KEY (log_id, size)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE proposals (
        id TEXT PRIMARY KEY,
        action TEXT NOT NULL,
        subject TEXT NOT NULL,
        statement BLOB NOT NULL,
        made INTEGER NOT NULL,
        expires INTEGER NOT NULL,
        ended TEXT,
        ended_at INTEGER
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE votes (
        proposal TEXT NOT NULL REFERENCES proposals (id),
        operator TEXT NOT NULL,
        verdict TEXT NOT NULL CHECK (verdict IN ('approve', 'deny')),
        cast_at INTEGER NOT NULL,
        signature BLOB NOT NULL,
        PRIMARY KEY (proposal, operator)
    ) STRICT, WITHOUT ROWID;
    CREATE TRIGGER proposals_end_once BEFORE UPDATE ON proposals WHEN OLD.ended IS NOT NULL
    BEGIN SELECT RAISE(ABORT, 'a proposal ends once'); END;

    CREATE TABLE generations (
        number INTEGER PRIMARY KEY,
        state TEXT NOT NULL CHECK (state IN ('staged', 'active', 'retiring', 'retired')),
        vkeys TEXT NOT NULL,
        since INTEGER NOT NULL,
        until INTEGER,
        statement BLOB
    ) STRICT;
    CREATE TRIGGER generations_stay BEFORE DELETE ON generations
    BEGIN SELECT RAISE(ABORT, 'generations are retired, never deleted'); END;
    CREATE TRIGGER retired_stays BEFORE UPDATE ON generations WHEN OLD.state = 'retired'
    BEGIN SELECT RAISE(ABORT, 'a retired identity stays retired'); END;
    """,
    """
    CREATE TABLE pins (
        log_id INTEGER PRIMARY KEY REFERENCES logs (id),
        size INTEGER NOT NULL CHECK (size > 0),
        root BLOB NOT NULL CHECK (length(root) = 32),
        note BLOB NOT NULL,
        source TEXT NOT NULL,
        added INTEGER NOT NULL
    ) STRICT;
    CREATE TRIGGER pins_stay BEFORE DELETE ON pins
    BEGIN SELECT RAISE(ABORT, 'a pinned start stays'); END;
    CREATE TRIGGER pins_stand BEFORE UPDATE ON pins
    BEGIN SELECT RAISE(ABORT, 'a pinned start stays as it is'); END;
    CREATE TRIGGER pins_come_first BEFORE INSERT ON pins
    WHEN EXISTS (SELECT 1 FROM heads WHERE log_id = NEW.log_id)
    BEGIN SELECT RAISE(ABORT, 'a start is pinned before the first contact'); END;
    CREATE TRIGGER heads_start_at_pins BEFORE INSERT ON heads
    WHEN EXISTS (SELECT 1 FROM pins WHERE log_id = NEW.log_id
        AND (NEW.size < size OR (NEW.size = size AND NEW.root <> root)))
    BEGIN SELECT RAISE(ABORT, 'the first head extends the pinned start'); END;
    """,
    # REPLACE deletes a row without asking the delete triggers: a head is inserted once, then only updated.
    """
    CREATE TRIGGER heads_once BEFORE INSERT ON heads
    WHEN EXISTS (SELECT 1 FROM heads WHERE log_id = NEW.log_id)
    BEGIN SELECT RAISE(IGNORE); END;
    """,
    """
    CREATE TABLE cosignatures (
        id INTEGER PRIMARY KEY,
        log_id INTEGER NOT NULL REFERENCES logs (id),
        size INTEGER NOT NULL,
        root BLOB NOT NULL CHECK (length(root) = 32),
        timestamp INTEGER NOT NULL,
        note BLOB NOT NULL,
        cosignatures BLOB NOT NULL
    ) STRICT;
    CREATE TRIGGER cosignatures_stand BEFORE UPDATE ON cosignatures
    BEGIN SELECT RAISE(ABORT, 'a recorded cosignature stays as it is'); END;
    """,
    # A log's key is withdrawn, and may be trusted again; it is never deleted or exchanged, and neither is the
    # name of its log. Whoever changes keys is noticed by a running core, which asks who it was.
    """
    ALTER TABLE log_keys ADD COLUMN withdrawn INTEGER;
    CREATE TRIGGER logs_keep_their_names BEFORE UPDATE ON logs
    WHEN NEW.id <> OLD.id OR NEW.origin <> OLD.origin OR NEW.origin_hash <> OLD.origin_hash
    BEGIN SELECT RAISE(ABORT, 'a log keeps its origin'); END;
    CREATE TRIGGER logs_once BEFORE INSERT ON logs
    WHEN EXISTS (SELECT 1 FROM logs WHERE id = NEW.id OR origin = NEW.origin OR origin_hash = NEW.origin_hash)
    BEGIN SELECT RAISE(ABORT, 'a log is added once'); END;
    CREATE TRIGGER logs_need_keys BEFORE UPDATE OF disabled ON logs
    WHEN NEW.disabled = 0
        AND NOT EXISTS (SELECT 1 FROM log_keys WHERE log_id = NEW.id AND withdrawn IS NULL)
    BEGIN SELECT RAISE(ABORT, 'a log without a key stays disabled'); END;
    CREATE TRIGGER log_keys_stay BEFORE DELETE ON log_keys
    BEGIN SELECT RAISE(ABORT, 'a log''s key is withdrawn, never deleted'); END;
    CREATE TRIGGER log_keys_stand BEFORE UPDATE ON log_keys
    WHEN NEW.id <> OLD.id OR NEW.log_id <> OLD.log_id OR NEW.vkey <> OLD.vkey
        OR NEW.source <> OLD.source OR NEW.added <> OLD.added
    BEGIN SELECT RAISE(ABORT, 'a log''s key stays as it is'); END;
    CREATE TRIGGER log_keys_once BEFORE INSERT ON log_keys
    WHEN EXISTS (SELECT 1 FROM log_keys WHERE id = NEW.id OR (log_id = NEW.log_id AND vkey = NEW.vkey))
    BEGIN SELECT RAISE(ABORT, 'a log''s key is written down once'); END;
    CREATE TRIGGER log_keys_last BEFORE UPDATE OF withdrawn ON log_keys
    WHEN NEW.withdrawn IS NOT NULL
        AND EXISTS (SELECT 1 FROM logs WHERE id = NEW.log_id AND disabled = 0)
        AND NOT EXISTS (SELECT 1 FROM log_keys
            WHERE log_id = NEW.log_id AND id <> NEW.id AND withdrawn IS NULL)
    BEGIN SELECT RAISE(ABORT, 'the last key of an enabled log is not withdrawn: disable the log first'); END;
    CREATE TRIGGER log_keys_withdrawn_are_told AFTER UPDATE OF withdrawn ON log_keys
    BEGIN UPDATE logs SET change = (SELECT max(change) + 1 FROM logs) WHERE id = NEW.log_id; END;
    CREATE TRIGGER log_keys_added_are_told AFTER INSERT ON log_keys
    WHEN EXISTS (SELECT 1 FROM log_keys WHERE log_id = NEW.log_id AND id <> NEW.id)
    BEGIN UPDATE logs SET change = (SELECT max(change) + 1 FROM logs) WHERE id = NEW.log_id; END;
    """,
    # A staged generation says for how long the one before is to sign beside it; and, as above, once retired
    # is not to be replaced.
    """
    ALTER TABLE generations ADD COLUMN overlap INTEGER;
    CREATE TRIGGER generations_once BEFORE INSERT ON generations
    WHEN EXISTS (SELECT 1 FROM generations WHERE number = NEW.number)
    BEGIN SELECT RAISE(ABORT, 'a generation is written down once'); END;
    """,
)


def create(path: Path, *, name: str, identity: str, now: int) -> None:
    """Makes a new database for a new witness identity.

    Args:
        path: where; nothing may stand there.
        name: the witness's key name.
        identity: the random identifier that the key file carries too.
        now: POSIX seconds.

    Raises:
        StoreError: something stands there already.
    """
    import sqlite_utils  # here, so that a running core does not carry it

    if path.exists():
        raise StoreError(f"{path} exists already", "a database is made once, by witness init")
    database = sqlite_utils.Database(path)
    try:
        database.enable_wal()
        database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        _migrate(database.conn)
        database.execute("INSERT INTO identity VALUES (1, ?, ?, ?)", [name, identity, now])
        database.conn.commit()
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        database.close()
    path.chmod(0o600)


def check(path: Path) -> None:
    """Makes sure that a database of ours stands at `path`, and migrates an older one.

    Raises:
        MissingStore: there is none.
        UnknownSchema: it is not ours, or a newer program's.
    """
    if not path.is_file():
        raise MissingStore(
            f"there is no database at {path}",
            "a new witness is made with witness init; a lost database is not replaced by an empty one",
        )
    try:
        connection = sqlite3.connect(f"file:{path}?mode=rw", uri=True, isolation_level=None)
        try:
            application = connection.execute("PRAGMA application_id").fetchone()[0]
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if application != APPLICATION_ID:
                raise UnknownSchema(f"{path} is not a witness's database")
            if version > len(MIGRATIONS):
                raise UnknownSchema(
                    f"{path} has schema {version}; this program knows {len(MIGRATIONS)}",
                    "run the newer program that wrote it",
                )
            if version < len(MIGRATIONS):
                _migrate(connection)
        finally:
            connection.close()
    except sqlite3.DatabaseError as error:
        raise UnknownSchema(f"{path} cannot be read as a database: {error}") from error


def _migrate(connection: sqlite3.Connection) -> None:
    """Applies what is missing, each migration and its number in one transaction."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
        connection.executescript(f"BEGIN IMMEDIATE; {script} PRAGMA user_version = {number}; COMMIT;")
