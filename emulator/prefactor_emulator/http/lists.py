"""What lists have in common: which records they show, and which page of them."""

from collections.abc import Callable
from typing import Annotated, Generic, TypeVar

from fastapi import Query, Response

from prefactor_emulator.http.errors import json_response
from prefactor_emulator.model import JsonObject
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

    def page(
        self, details: Callable[[R], JsonObject], offset: int, size: int, *, order: str, field: str = ""
    ) -> Response:
        """Reply with one page of them.

        Args:
            details: Says of a record what the API says.
            offset: How many come before the page.
            size: How many the page has at most.
            order: The column by which they are sorted, with a `-` before it if falling.
            field: What the reply calls that column, if not by its name.
        """
        where = " AND ".join(self._conditions)
        column, falling = order.removeprefix("-"), order.startswith("-")
        sorted_by = f"{column} {'DESC' if falling else 'ASC'}, seq"
        found = self._store.select(
            self._kind, f"{where} ORDER BY {sorted_by} LIMIT ? OFFSET ?", *self._values, size, offset
        )
        count = self._store.count(self._kind, where, *self._values)
        end = min(count, offset + size)
        return json_response(
            {
                "status": "success",
                "summaries": [details(record) for record in found],
                "pagination": {
                    "item_count": count,
                    "item_start": offset + 1 if found else 0,
                    "item_end": end if found else 0,
                    "page_count": -(-count // size),
                    "page_index": offset // size,
                    "page_offset": offset,
                    "page_size": size,
                    "next_page_offset": end if end < count else None,
                    "previous_page_offset": max(0, offset - size) if offset else None,
                },
                "sorting": {"field": field or column, "direction": "desc" if falling else "asc"},
            }
        )
