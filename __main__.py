"""`python -m nlabench` is the command line."""

from .cli import main

main()
