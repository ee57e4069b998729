"""Tests of the inspect verb."""
