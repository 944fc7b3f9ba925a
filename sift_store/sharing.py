"""What stands on an open store: copies share the store, and nothing of it can be pickled."""

from __future__ import annotations

from copy import copy
from typing import Any, NoReturn, Self

from sift_store.errors import CopyError

__all__ = ["Sharing", "Unpickled"]


class Unpickled:
    """What cannot be pickled, nor copied where it does not say how.

    A pickle would have to hold the store's address, and the password in it; a store that only one process may have
    open could not be opened from it.
    """

    _instead = "share it, or open the store again where another is needed"

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise CopyError(f"{type(self).__name__} is an open store, which no copy and no pickle holds; {self._instead}")


class Sharing(Unpickled):
    """What adds nothing but settings to a store: a copy, deep or not, stands on the same one."""

    _instead = "copy.copy and copy.deepcopy give another over the same store; in another process make it anew"

    def __copy__(self) -> Self:
        inherited = getattr(super(), "__copy__", None)  # pydantic's models have one
        if inherited is not None:
            twin: Self = inherited()
            return twin
        twin = type(self).__new__(type(self))
        vars(twin).update(vars(self))
        return twin

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        twin = copy(self)
        vars(twin).update({name: _own(value) for name, value in vars(self).items()})
        if memo is not None:
            memo[id(self)] = twin
        return twin


def _own(value: Any) -> Any:
    """Settings of its own: containers are copied, what stands in them is shared."""
    if type(value) is dict:
        return {key: _own(item) for key, item in value.items()}
    return [_own(item) for item in value] if type(value) is list else value
