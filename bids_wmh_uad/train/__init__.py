"""The train level: learn from controls."""
