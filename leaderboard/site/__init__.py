"""The board as a static site: pages that are complete in themselves and work from a file or any host."""
