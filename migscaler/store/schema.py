"""Tables of the state file, and the steps from one version of them to the next."""

VERSION = 1
"""`user_version` of the file: a higher one is refused, a lower one is brought up."""

MIGRATIONS: tuple[str, ...] = (
    # 0 -> 1: everything. A released migration is never edited; a change is a new entry.
    """
    CREATE TABLE plans (
        seq INTEGER PRIMARY KEY, plan_id TEXT NOT NULL, gpu_uuid TEXT NOT NULL,
        before TEXT NOT NULL, after TEXT NOT NULL, steps TEXT NOT NULL,
        instances TEXT NOT NULL, boot_id TEXT NOT NULL, begun_at TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('open', 'verified', 'closed')),
        kind TEXT, reason TEXT, explanation TEXT, layout TEXT, ended_at TEXT,
        duration_seconds REAL, rolled_back INTEGER, counts_as_failure INTEGER,
        direction TEXT, timings TEXT
    );
    CREATE INDEX plans_unsettled ON plans (seq) WHERE state <> 'closed';
    CREATE TABLE steps (
        seq INTEGER PRIMARY KEY, plan_seq INTEGER NOT NULL REFERENCES plans (seq) ON DELETE CASCADE,
        gpu_uuid TEXT NOT NULL, action TEXT NOT NULL, spec TEXT NOT NULL, purpose TEXT NOT NULL,
        gi_id INTEGER, ci_id INTEGER,
        state TEXT NOT NULL CHECK (state IN ('begun', 'done', 'void')),
        begun_at TEXT NOT NULL, ended_at TEXT, note TEXT NOT NULL DEFAULT ''
    );
    CREATE INDEX steps_of_plan ON steps (plan_seq, seq);
    CREATE TABLE holds (
        hold_id INTEGER PRIMARY KEY AUTOINCREMENT, gpu_uuid TEXT NOT NULL, spec TEXT,
        owner TEXT NOT NULL, reason TEXT NOT NULL, kind TEXT NOT NULL, expires_at TEXT,
        created_at TEXT NOT NULL, pid INTEGER
    );
    CREATE TABLE lease_waits (
        wait_id INTEGER PRIMARY KEY AUTOINCREMENT, size TEXT NOT NULL, owner TEXT NOT NULL,
        pid INTEGER, since TEXT NOT NULL, expires_at TEXT
    );
    CREATE TABLE decisions (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, at TEXT NOT NULL, kind TEXT NOT NULL,
        reason TEXT NOT NULL, sentence TEXT NOT NULL, input BLOB NOT NULL, decision BLOB NOT NULL
    );
    CREATE TABLE generations (
        gpu_uuid TEXT PRIMARY KEY, generation INTEGER NOT NULL, layout TEXT, boot_id TEXT NOT NULL,
        changed_at TEXT NOT NULL, model_name TEXT, mig_mode_wanted INTEGER
    );
    CREATE TABLE wanted (
        gpu_uuid TEXT PRIMARY KEY, layout TEXT NOT NULL, boot_id TEXT NOT NULL, at TEXT NOT NULL
    );
    CREATE TABLE gpu_histories (
        gpu_uuid TEXT PRIMARY KEY, last_change_at TEXT, last_direction TEXT, rest_until TEXT,
        flapping INTEGER NOT NULL, reversals INTEGER NOT NULL, failures_in_row INTEGER NOT NULL,
        breaker_open_until TEXT, breaker_trips INTEGER NOT NULL, held_by_client_until TEXT
    );
    CREATE TABLE pushed (source TEXT PRIMARY KEY, reading TEXT NOT NULL);
    CREATE TABLE standing (name TEXT PRIMARY KEY, value TEXT NOT NULL);
    """,
)
