"""A RabbitMQ cluster of a test's own."""

import json
from pathlib import Path

from tests.support.brokers.epmd import Epmd
from tests.support.brokers.process import Servers
from tests.support.brokers.rabbitmq_server import CtlError, RabbitServer
from tests.support.brokers.waiting import wait_until

_NODES = 3
_SETTLE_SECONDS = 180.0
_LIST_SECONDS = 15.0  # a frozen leader holds the list up


class RabbitCluster(Servers):
    """Three nodes on this machine, each of which can be killed and started again.

    Args:
        folder: Where the nodes keep everything.
        config: Lines for the ``rabbitmq.conf`` of each node.
    """

    def __init__(self, folder: Path, *config: str) -> None:
        self._epmd = Epmd(folder)
        self.nodes = [
            RabbitServer(
                folder / f"node-{number}",
                "cluster_partition_handling = autoheal",  # else what a long freeze has parted stays parted
                *config,
                epmd=self._epmd,
            )
            for number in range(_NODES)
        ]
        super().__init__(*self.nodes)

    @property
    def urls(self) -> list[str]:
        """The addresses of all nodes, in their order."""
        return [node.url for node in self.nodes]

    @property
    def url(self) -> str:
        """The address of a node that is up."""
        return self._up()[0].url

    def close(self) -> None:
        """End it for good, and its name server too."""
        super().close()
        self._epmd.kill()

    def leader_of(self, queue: str, vhost: str = "/") -> RabbitServer:
        """Return the node that leads a quorum queue; wait for one where the last one was killed."""
        return wait_until(
            lambda: self._leader_now(queue, vhost),
            f"a leader of {queue}",
            seconds=_SETTLE_SECONDS,
            errors=(CtlError,),
        )

    def kill_leader_of(self, queue: str, vhost: str = "/") -> RabbitServer:
        """Kill the node that leads a quorum queue, and return it."""
        node = self.leader_of(queue, vhost)
        node.kill()
        return node

    def heal(self) -> None:
        """Let all nodes go on or start them again, end alarms, and wait until they are a cluster."""
        for node in self.nodes:
            node.thaw()
        dead = [node for node in self.nodes if not node.running]
        for node in dead:  # all at once: the one that stopped first waits for the others
            node.launch()
        super().heal()

    def wait_settled(self, seconds: float = _SETTLE_SECONDS) -> None:
        """Wait until the nodes that are up see each other, and nobody else."""
        wait_until(
            self._is_settled,
            f"a cluster of {len(self._up())} running nodes",
            seconds=seconds,
            errors=(CtlError,),
        )

    def _join(self) -> None:
        self._epmd.start()
        for node in self.nodes:
            node.launch()
        for node in self.nodes:
            node.wait_ready()
        first, *others = self.nodes
        for node in others:
            node.ctl("stop_app")
            node.ctl("join_cluster", first.node)
            node.ctl("start_app")

    def _is_settled(self) -> bool:
        up = {node.node for node in self._up()}
        return all(
            set(json.loads(node.ctl("cluster_status", "--formatter", "json"))["running_nodes"]) == up
            for node in self._up()
        )

    def _leader_now(self, queue: str, vhost: str) -> RabbitServer | None:
        rows = self._up()[0].ctl("list_queues", "--vhost", vhost, "name", "leader", seconds=_LIST_SECONDS)
        leaders = dict(row.split("\t") for row in rows.splitlines())
        return next((node for node in self._up() if node.node == leaders.get(queue)), None)

    def _up(self) -> list[RabbitServer]:
        return [node for node in self.nodes if node.up]
