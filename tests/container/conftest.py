"""The shared fixtures; see fixtures.py."""

from container.fixtures import *  # noqa: F403
