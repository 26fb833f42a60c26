"""What lists have in common: which records they show, and which page of them."""

from typing import Annotated, Generic, TypeVar

from fastapi import Query

from prefactor_emulator.replies import Pagination
from prefactor_emulator.storage.records import Record
from prefactor_emulator.storage.store import Store, Value

R = TypeVar("R", bound=Record)

Offset = Annotated[int, Query(alias="pagination[offset]", ge=0, le=2**62)]
PageSize = Annotated[int, Query(alias="pagination[page_size]", ge=1, le=100)]


class Chosen(Generic[R]):
    """What a list shows: the records for which conditions hold.

    Args:
        store: Where they are kept.
        kind: What they are.
        condition: The first condition, in SQL.
        value: What its question mark stands for.
    """

    def __init__(self, store: Store, kind: type[R], condition: str, value: Value) -> None:
        self._store = store
        self._kind = kind
        self._conditions = [condition]
        self._values = [value]

    def narrow(self, condition: str, value: Value) -> None:
        """Add a condition, if there is a value for it."""
        if value is not None:
            self._conditions.append(condition)
            self._values.append(value)

    def page(self, order: str, offset: int, size: int) -> list[R]:
        """Read one page of them."""
        where = f"{' AND '.join(self._conditions)} ORDER BY {order} LIMIT ? OFFSET ?"
        return self._store.select(self._kind, where, *self._values, size, offset)

    def pagination(self, offset: int, size: int) -> Pagination:
        """Tell which page that is."""
        count = self._store.count(self._kind, " AND ".join(self._conditions), *self._values)
        end = min(count, offset + size)
        return Pagination(
            item_count=count,
            item_start=min(count, offset + 1),
            item_end=end,
            page_count=-(-count // size),
            page_index=offset // size,
            page_offset=offset,
            page_size=size,
            next_page_offset=end if end < count else None,
            previous_page_offset=max(0, offset - size) if offset else None,
        )
