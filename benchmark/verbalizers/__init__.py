"""Verbalizers: one file per family. A new one is a new file here, or an entry point in another package."""
