"""The browser that the tests of pages share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from browser.chromium import Browser, find_browser

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Started once for each module, with a profile of its own; modules are skipped where there is none."""
    found = find_browser()
    assert found is not None
    started = Browser(found, tmp_path_factory.mktemp("profile"))
    yield started
    started.close()
