"""Where the API's requests are found and how large they may be: for its routes and for faults."""

from typing import Final

API_PREFIX: Final = "/api/v1"
BULK_PATH: Final = f"{API_PREFIX}/bulk"

MAX_BODY_BYTES: Final = 5 * 1024 * 1024  # assumed: the API publishes no limit
