"""What all parts of the contract have in common."""

from typing import ClassVar

import pytest

from prefactor_core.testing.transport import Transport


class Contract:
    """Tests that need a ``transport``."""

    pytestmark: ClassVar[pytest.MarkDecorator] = pytest.mark.asyncio

    @pytest.fixture
    def transport(self) -> Transport:
        """Return the transport under test, at a place of its own. Every subclass overrides it."""
        raise NotImplementedError("override the fixture transport() in your subclass")
