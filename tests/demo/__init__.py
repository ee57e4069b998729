"""Tests of the demo model's recipe."""
