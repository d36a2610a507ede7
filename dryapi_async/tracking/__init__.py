"""How jobs are followed: one watcher per client, every source of news folded into one truth, waiters woken by it."""
