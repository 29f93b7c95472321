"""How the reference NLA is made: texts, readings, warm start, reinforcement, and what held-out text says of it."""
