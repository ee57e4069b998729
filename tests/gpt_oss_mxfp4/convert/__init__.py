"""Tests of the convert verb; `folders` reads and writes small checkpoints of any layout."""
