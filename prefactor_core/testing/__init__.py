"""The contract of transports, as tests: subclass them, and pytest holds your transport to the SDK's promises.

Needs pytest and pytest-asyncio. ``QueueContract`` is for any queue; ``TransportContract`` is for those that
several processes share. ``docs/write-a-transport.md`` says how to use them::

    import pytest
    from prefactor_core.testing import Transport, TransportContract

    class TestMyTransport(TransportContract):
        @pytest.fixture
        def transport(self, tmp_path):
            return Transport(
                url=f"mine://{tmp_path}/file?lease=1", dies_within=1.0, unreachable_url="mine:///no/file"
            )
"""

from pkgutil import iter_modules

import pytest

# Before they are imported: their asserts say what they saw, as those of tests do.
pytest.register_assert_rewrite(*(f"{__name__}.{module.name}" for module in iter_modules(__path__)))

from prefactor_core.testing.agents import BufferContract, PublishingContract  # noqa: E402
from prefactor_core.testing.crashes import CrashContract  # noqa: E402
from prefactor_core.testing.dead_letters import DeadLetterContract  # noqa: E402
from prefactor_core.testing.delivery import DeliveryContract  # noqa: E402
from prefactor_core.testing.drivers import DriverContract  # noqa: E402
from prefactor_core.testing.fleets import FleetContract  # noqa: E402
from prefactor_core.testing.leases import LeaseContract  # noqa: E402
from prefactor_core.testing.transport import Transport  # noqa: E402

__all__ = ["QueueContract", "Transport", "TransportContract"]


class QueueContract(DeliveryContract, BufferContract):
    """What every queue holds, also one that ends in this process."""


class TransportContract(
    QueueContract,
    PublishingContract,
    FleetContract,
    CrashContract,
    DeadLetterContract,
    DriverContract,
    LeaseContract,
):
    """What a transport holds that several processes share."""
