"""How a benchmark is planned, run, judged and shown."""
