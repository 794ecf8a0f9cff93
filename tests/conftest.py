"""Order of the files: those that start processes are the longest and come first.

`make test` gives each file to one of two workers (`--dist loadfile`), so that what a file compiles is
compiled once; a long file that came last would run alone.
"""

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    slow = {item.path for item in items if item.get_closest_marker("processes")}
    items.sort(key=lambda item: item.path not in slow)
