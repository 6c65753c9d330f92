"""What every object store can do."""

from collections.abc import Iterable, Iterator
from typing import Protocol


class Store(Protocol):
    """Keys are POSIX paths. Every method raises StorageError when the store cannot be reached."""

    address: str

    def put(self, key: str, data: bytes) -> None:
        """Write whole or not at all; an object of this key is replaced."""
        ...

    def put_new(self, key: str, data: bytes) -> bool:
        """Write only when there is no such object; False when there was. Of two at once exactly one wins."""
        ...

    def get(self, key: str) -> bytes:
        """Raises ObjectError, a StorageError, when there is no such object or it alone cannot be read."""
        ...

    def exists(self, key: str) -> bool: ...

    def keys(self, prefix: str = "") -> Iterator[str]:
        """The keys that begin with *prefix*, sorted."""
        ...

    def folders(self, prefix: str) -> list[str]:
        """The names one level below *prefix*, which ends with a slash; sorted."""
        ...

    def delete(self, key: str) -> None:
        """No error when there is no such object."""
        ...

    def settled(self, keys: Iterable[str], seconds: float, limit: int) -> list[str]:
        """The first *limit* of *keys* that are whole: nobody writes them. May wait *seconds* once, to look again."""
        ...

    def remove_unchanged(self, key: str, sha256: str) -> bool:
        """Delete the object if these are still its bytes; False when it is gone, or replaced and therefore kept."""
        ...
