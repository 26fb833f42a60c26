"""The whole contract of transports, held against this one."""

import sqlite3
from pathlib import Path

import pytest

from prefactor_core.testing import Transport, TransportContract
from prefactor_sqlite.store import TABLES


class TestSqlite(TransportContract):
    """Every test of the contract, each with a file of its own."""

    @pytest.fixture
    def transport(self, tmp_path: Path) -> Transport:
        """Return the transport at a new file, with a lease that is short enough to wait for."""
        file = tmp_path / "operations.db"

        async def leftovers() -> list[str]:
            with sqlite3.connect(file) as connection:
                counts = {table: connection.execute(f"SELECT COUNT(*) FROM {table}") for table in TABLES}  # noqa: S608
                found = [table for table, (count,) in ((t, c.fetchone()) for t, c in counts.items()) if count]
            connection.close()
            return found

        return Transport(
            url=f"sqlite://{file}?lease=3",
            unreachable_url="sqlite:///no/such/folder/operations.db",
            dies_within=3.0,
            leftovers=leftovers,
            keeps={"settings"},
        )
