"""Scenes and windows that a generator is trained and judged on."""
