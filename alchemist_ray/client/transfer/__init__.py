"""Move matrices between this process and the workers."""
