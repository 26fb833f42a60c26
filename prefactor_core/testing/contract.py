"""The contract, assembled from its parts."""

from prefactor_core.testing.assignment import SharingContract
from prefactor_core.testing.bounds import BufferContract, PublishingContract
from prefactor_core.testing.closing import ClosingContract
from prefactor_core.testing.crashes import CrashContract
from prefactor_core.testing.dead_letters import DeadLetterContract
from prefactor_core.testing.drivers import DriverContract
from prefactor_core.testing.garbage import GarbageContract
from prefactor_core.testing.leases import LeaseContract
from prefactor_core.testing.ordering import OrderContract
from prefactor_core.testing.ownership import OwnershipContract
from prefactor_core.testing.publishers import PublishersContract
from prefactor_core.testing.settling import SettlingContract


class QueueContract(OrderContract, SettlingContract, BufferContract, ClosingContract):
    """What every queue holds, also one that ends in this process."""


class TransportContract(
    QueueContract,
    PublishingContract,
    OwnershipContract,
    SharingContract,
    CrashContract,
    DeadLetterContract,
    GarbageContract,
    DriverContract,
    PublishersContract,
    LeaseContract,
):
    """What a transport holds that several processes share."""
