"""Hypothesis draws the same examples on every run, and few enough to stay quick."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("ci", derandomize=True, deadline=None, max_examples=25, database=None)
settings.load_profile("ci")
