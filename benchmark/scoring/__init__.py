"""Scorers: texts against concepts. One file per family; a new scorer is a new file here, or an entry point."""
