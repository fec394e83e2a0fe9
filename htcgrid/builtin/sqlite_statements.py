"""The queue's SQL."""

INSERT_TASK = "INSERT INTO tasks (seq, id, submitted, attributes, payload) VALUES (?, ?, ?, ?, ?)"
INSERT_STATE = "INSERT INTO queue (seq, session, priority, state, attempt, cancelled) VALUES (?, ?, ?, 'ready', 0, 0)"
LAST_SEQ = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'tasks'"
SEQ_OF = "SELECT seq FROM tasks WHERE id = ?"

NEXT_DUE = """
    SELECT EXISTS (SELECT 1 FROM queue WHERE state = 'ready'),
           (SELECT min(due) FROM queue WHERE state = 'delayed'),
           (SELECT min(due) FROM queue WHERE state = 'leased')
"""
DELAY_OVER = "UPDATE queue SET state = 'ready', due = NULL WHERE state = 'delayed' AND due <= ?"
LEASE_OVER = "UPDATE queue SET state = 'ready', due = NULL WHERE state = 'leased' AND due <= ?"
READY = """
    SELECT q.seq, q.attempt + 1, q.cancelled, t.id, t.attributes, t.payload
    FROM queue AS q INDEXED BY queue_ready CROSS JOIN tasks AS t ON t.seq = q.seq
    WHERE q.state = 'ready' ORDER BY q.priority DESC, q.seq LIMIT ?
"""
LEND = "UPDATE queue SET state = 'leased', due = ?, attempt = attempt + 1 WHERE seq = ?"

# A loan is a task's number and its attempt. Only the latest loan of a task can be extended or given back.
EXTEND = "UPDATE queue SET due = ? WHERE seq = ? AND attempt = ? AND state = 'leased' AND NOT cancelled"
IS_OURS = "SELECT 1 FROM queue WHERE seq = ? AND attempt = ? AND state = 'leased' AND NOT cancelled"
GIVE_BACK = "UPDATE queue SET state = 'ready', due = NULL WHERE seq = ? AND attempt = ? AND state = 'leased'"
DELAY = """
    UPDATE queue SET state = 'delayed', due = ?
    WHERE seq = ? AND attempt = ? AND state = 'leased' AND NOT cancelled
"""
DONE = "DELETE FROM queue WHERE seq = ? AND state <> 'dead'"
SET_ASIDE = "UPDATE queue SET state = 'dead', due = NULL, reason = ? WHERE seq = ? AND state <> 'dead'"

OF_SESSION = """
    SELECT seq FROM queue
    WHERE seq > ? AND session = ? AND NOT cancelled AND state <> 'dead' ORDER BY seq LIMIT ?
"""
CANCEL = """
    UPDATE queue SET cancelled = 1, priority = ?,
        state = CASE state WHEN 'delayed' THEN 'ready' ELSE state END,
        due = CASE state WHEN 'leased' THEN due END
    WHERE seq = ? AND NOT cancelled AND state <> 'dead'
"""

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
