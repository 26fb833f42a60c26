"""What a Redis URL may say beside what every broker's URL may say."""

from typing import Annotated

from pydantic import Field

from prefactor_core.broker.options import BrokerOptions


class RedisOptions(BrokerOptions):
    """Options of ``redis://``, ``rediss://``, ``redis+cluster://`` and ``redis+sentinel://``.

    Attributes:
        lease: Seconds for which a worker owns a partition without renewing it. When a worker dies, its
            partitions rest for that long.
        replicas: Replicas that must have a batch before it counts as published. With 0 a failover can lose
            what was just published.
    """

    lease: Annotated[float, Field(ge=1, le=3_600, allow_inf_nan=False)] = 15.0
    replicas: Annotated[int, Field(ge=0, le=100)] = 0
