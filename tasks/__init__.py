"""Tasks: one file each. A new task is a new file here, or an entry point in another package."""
