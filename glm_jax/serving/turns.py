"""A queue in which clients take turns, so that one with many requests does not keep out another."""

import collections
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Turns(Generic[Item]):
    """First come, first served within a client; one item of each client in turn.

    a puts 1 2 3, then b puts 4    ->    1 4 2 3
    """

    def __init__(self):
        self._queues: collections.OrderedDict[str, collections.deque[Item]] = (
            collections.OrderedDict()
        )
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def put(self, client: str, item: Item) -> None:
        """Appends an item to those of its client."""
        self._queues.setdefault(client, collections.deque()).append(item)
        self._count += 1

    def take(self) -> Item:
        """The next item; IndexError if there is none."""
        if not self._queues:
            raise IndexError("nothing waits")
        client, queue = self._queues.popitem(last=False)
        item = queue.popleft()
        if queue:
            self._queues[client] = queue
        self._count -= 1
        return item

    def remove(self, unwanted: Callable[[Item], bool]) -> list[Item]:
        """Takes out all items of which `unwanted` is true, and returns them in no set order."""
        found: list[Item] = []
        for client, queue in list(self._queues.items()):
            kept = collections.deque[Item]()
            for item in queue:
                (found if unwanted(item) else kept).append(item)
            if kept:
                self._queues[client] = kept
            else:
                del self._queues[client]
        self._count -= len(found)
        return found
