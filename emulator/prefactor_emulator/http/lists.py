"""What lists have in common: which records they show, and which page of them."""

from collections.abc import Callable, Mapping
from typing import Annotated, TypeVar

from fastapi import Query, Response

from prefactor_emulator.http.errors import json_response
from prefactor_emulator.model import JsonObject
from prefactor_emulator.storage.records import Record
from prefactor_emulator.storage.store import Store, Value

R = TypeVar("R", bound=Record)

Offset = Annotated[int, Query(alias="pagination[offset]", ge=0, le=2**62)]
PageSize = Annotated[int, Query(alias="pagination[page_size]", ge=1, le=100)]


def page_of(
    store: Store,
    kind: type[R],
    conditions: Mapping[str, Value],
    details: Callable[[R], JsonObject],
    offset: int,
    size: int,
    order: tuple[str, str],
) -> Response:
    """Reply with one page of the records for which conditions hold.

    Args:
        store: Where they are kept.
        kind: What they are.
        conditions: Each in SQL, with what its question mark stands for; None: it does not count.
        details: Says of a record what the API says.
        offset: How many come before the page.
        size: How many the page has at most.
        order: The column that sorts them, with a `-` before it if falling, and its name in the reply.
    """
    used = {condition: value for condition, value in conditions.items() if value is not None}
    where = " AND ".join(used)
    column, direction = order[0].removeprefix("-"), "desc" if order[0].startswith("-") else "asc"
    count = store.count(kind, where, *used.values())
    page = f"{where} ORDER BY {column} {direction}, seq LIMIT ? OFFSET ?"
    found = store.select(kind, page, *used.values(), size, offset)
    end = offset + len(found)
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
            "sorting": {"field": order[1], "direction": direction},
        }
    )
