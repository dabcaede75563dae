"""Runs in other libraries' formats, and back."""
