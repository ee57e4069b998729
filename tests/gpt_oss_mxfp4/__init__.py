"""Tests of the Python package, by the paths of its files."""
