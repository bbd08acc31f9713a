"""Files that survive a kill: atomic replacement, locks, cached arrays."""
