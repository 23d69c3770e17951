"""Life as a child process: from the ready line to the end of the host."""
