"""A synthetic study of any size, and the stages of a run that are timed on it (see `bench_growth.py`)."""
