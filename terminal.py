"""Where the command line writes: results to the standard output, complaints to the standard error."""

from __future__ import annotations

import sys

from rich.console import Console

# In a pipe or a log there is no width to fit; eighty columns would fold every interval.
console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
complaints = Console(stderr=True, highlight=False)
