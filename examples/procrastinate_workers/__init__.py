"""Jobs queued in PostgreSQL, submitted by any number of workers on any number of hosts."""
