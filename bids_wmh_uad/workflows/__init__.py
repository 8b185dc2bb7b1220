"""Nipype graphs, built by small functions."""
