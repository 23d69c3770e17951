"""Where engines live: worker processes, and the slot that owns one."""
