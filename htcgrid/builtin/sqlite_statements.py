"""The queue's SQL.

LEASE and DONE, which each task needs, take a whole batch: a JSON array of task numbers. Python's `executemany` releases and
takes the global interpreter lock for every row, and other threads need that lock.
"""

INSERT_TASK = "INSERT INTO tasks (seq, id, submitted, attributes, payload) VALUES (?, ?, ?, ?, ?)"
INSERT_STATE = "INSERT INTO queue (seq, session, priority, state, attempt) VALUES (?, ?, ?, 'ready', 0)"
CONTENT = "SELECT attributes, payload FROM tasks WHERE id = ?"
THERE = "SELECT seq, attributes FROM tasks WHERE id = ?"
REMOVE = "DELETE FROM queue WHERE seq = ?"
LAST_SEQ = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'tasks'"

NEXT_DUE = """
    SELECT EXISTS (SELECT 1 FROM queue WHERE state = 'ready'),
           (SELECT min(due) FROM queue WHERE state = 'delayed'),
           (SELECT min(due) FROM queue WHERE state = 'leased')
"""
DELAY_OVER = "UPDATE queue SET state = 'ready', due = NULL WHERE state = 'delayed' AND due <= ?"
LEASE_OVER = "UPDATE queue SET state = 'ready', due = NULL WHERE state = 'leased' AND due <= ?"
READY = """
    SELECT q.seq, q.attempt + 1, t.id, t.attributes, t.payload
    FROM queue AS q INDEXED BY queue_ready LEFT JOIN tasks AS t ON t.seq = q.seq
    WHERE q.state = 'ready' ORDER BY q.priority DESC, q.seq LIMIT ?
"""
LEASE = """
    UPDATE queue SET state = 'leased', due = ?, agent = ?, attempt = attempt + 1
    WHERE seq IN (SELECT value FROM json_each(?))
"""
EXPIRED = """
    SELECT q.agent, q.due, t.id FROM queue AS q INDEXED BY queue_leased CROSS JOIN tasks AS t ON t.seq = q.seq
    WHERE q.state = 'leased' AND q.due <= ?
"""
SEEN = "INSERT INTO agents VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET seen = excluded.seen"
LEFT = "DELETE FROM agents WHERE name = ?"
FORGET = "DELETE FROM agents WHERE seen < ?"

# A lease is a task's number and its attempt. Only the latest lease of a task can be extended or returned.
EXTEND = "UPDATE queue SET due = ? WHERE seq = ? AND attempt = ? AND state = 'leased'"
IS_OURS = "SELECT 1 FROM queue WHERE seq = ? AND attempt = ? AND state = 'leased'"
RETURN = "UPDATE queue SET state = 'ready', due = NULL WHERE seq = ? AND attempt = ? AND state = 'leased'"
DELAY = """
    UPDATE queue SET state = 'delayed', due = ?
    WHERE seq = ? AND attempt = ? AND state = 'leased'
"""
DONE = "DELETE FROM queue WHERE seq IN (SELECT value FROM json_each(?)) AND state <> 'dead'"
TO_DEAD_LETTERS = (
    "UPDATE queue SET state = 'dead', due = NULL, reason = ? WHERE seq = ? AND state IN ('ready', 'delayed', 'leased')"
)

OF_SESSION = """
    SELECT q.seq, t.id, t.attributes FROM queue AS q CROSS JOIN tasks AS t ON t.seq = q.seq
    WHERE q.seq > ? AND q.session = ? AND q.state <> 'dead' ORDER BY q.seq LIMIT ?
"""
OF_ID = """
    SELECT q.seq, t.id, t.attributes FROM tasks AS t CROSS JOIN queue AS q ON q.seq = t.seq
    WHERE t.id = ? AND q.state <> 'dead'
"""
PENDING = """
    SELECT EXISTS (SELECT 1 FROM queue WHERE session = ? AND state IN ('ready', 'delayed', 'leased'))
"""
CANCEL = "UPDATE queue SET state = 'cancelled', due = NULL WHERE seq = ?"
DROP_EVENT = "UPDATE tasks SET payload = x'' WHERE seq = ?"

DEPTH = """
    SELECT (SELECT count(*) FROM queue WHERE state = 'ready')
               + (SELECT count(*) FROM queue WHERE state = 'delayed')
               + (SELECT count(*) FROM queue WHERE state = 'leased' AND due <= :now),
           (SELECT count(*) FROM queue WHERE state = 'leased' AND due > :now),
           (SELECT count(*) FROM queue WHERE state = 'dead')
"""
DEAD = """
    SELECT q.seq, q.attempt, q.reason, t.id, t.attributes, t.payload
    FROM queue AS q INDEXED BY queue_dead CROSS JOIN tasks AS t ON t.seq = q.seq
    WHERE q.state = 'dead' AND q.seq > ? ORDER BY q.seq
"""
