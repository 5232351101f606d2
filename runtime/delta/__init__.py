"""Delta Lake tables whose files an engine has written: places, types, statistics, log and commits."""
