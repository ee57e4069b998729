"""Tests of the graph's layers."""
