"""The contract, for ``memory://``: what has to do with other processes does not apply to it."""

import pytest

from prefactor_core.testing import QueueContract, Transport


class TestMemory(QueueContract):
    @pytest.fixture
    def transport(self) -> Transport:
        return Transport(url="memory://")
