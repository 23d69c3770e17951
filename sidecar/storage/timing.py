"""Time limits of shared jobs that must agree with each other."""

HEARTBEAT_S = 1.0
"""Interval of heartbeats: short enough that the jobs of a dead service are free within seconds."""
EXPIRY_LOOKS = 3
"""Looks, one each `HEARTBEAT_S`, in which a heartbeat stands still before its service is dead: one
that meets a dead connection and is repeated over another is not late yet."""
CONNECT_S = 2
"""Limit for a server to accept a connection; whole seconds, as libpq wants it."""
LOCK_S = 2.0
"""Limit for a lock (`lock_timeout`): below `STATEMENT_S`, so that the error names the lock."""
STATEMENT_S = 3.0
"""Limit for a statement (`statement_timeout`): the server gives it up before the caller."""
CALL_S = 4.5
"""Limit for a call with the wait for a connection and repetitions: a client hears of it in 5 s."""
LISTEN_CHECK_S = 2.0
"""Interval of checks of a connection that listens: a frozen server sends no error by itself."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 1.0
"""Back-off between attempts: a database that restarts is there in tenths of a second, and one that
is away for long costs one attempt a second."""
KEEPALIVE_IDLE_S, KEEPALIVE_INTERVAL_S, KEEPALIVES = 3, 1, 3
"""TCP keepalive: an idle line that is dead at one end is found out within 6 s."""
SEND_S = 30.0
"""Limit for a server to send to a client that stands still: notifications wait for it meanwhile."""
UNACKNOWLEDGED_S = 1.5
"""Limit for data that the other end does not acknowledge (`tcp_user_timeout`): three
retransmissions, and short enough to repeat a heartbeat before its service is taken for dead."""
