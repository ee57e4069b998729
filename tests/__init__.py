"""The tests: each file sits at the path of the source that it tests."""
