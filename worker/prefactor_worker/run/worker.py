"""One worker: a broker's deliveries, carried out by the executor, posted to the API."""

import asyncio
import logging
import os
from contextlib import nullcontext
from dataclasses import replace
from typing import Final
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry

from prefactor_core import HttpClientConfig
from prefactor_core.api.endpoint import Endpoint
from prefactor_core.api.packing import BULK_LIMITS
from prefactor_core.api.pipeline import Pipeline
from prefactor_core.api.replies import Reply
from prefactor_core.broker.options import asked_partitions
from prefactor_core.client import CORE_SDK_HEADER_ENTRY
from prefactor_core.exceptions import BrokerError
from prefactor_core.execution.retry import RetryPolicy
from prefactor_core.texts import plain_url
from prefactor_worker.broker import broker_queue
from prefactor_worker.options import API_URL_VARIABLE
from prefactor_worker.run.health import Health
from prefactor_worker.run.meter import Meter, MeteredApi, MeteredDelivery
from prefactor_worker.run.server import serving
from prefactor_worker.run.settings import RunSettings
from prefactor_worker.run.watch import Watch
from prefactor_worker.token import TOKEN_VARIABLE

logger = logging.getLogger("prefactor_worker")

_URL_SETTING: Final = f"--api-url ({API_URL_VARIABLE})"
_TOKEN_SETTING: Final = f"--api-token-file or {TOKEN_VARIABLE}"
_LOOK: Final = 0.5
"""Seconds between two looks at whether the token is refused, or everything is done."""


class Worker:
    """Takes operations from a broker and posts them, until it is told to stop.

    Raises:
        TransportError: The transport's URL cannot be served, or it needs no workers.
        pydantic.ValidationError: The API's URL, its token or the timeout of requests is wrong.
    """

    def __init__(self, settings: RunSettings) -> None:
        self._settings = settings
        self.queue = broker_queue(settings.transport)
        self.registry = CollectorRegistry()
        self.meter = Meter(self.registry)
        http = HttpClientConfig(
            api_url=settings.api_url,
            api_token=settings.token.current(),
            request_timeout=settings.request_timeout,
        )
        self.pipeline = Pipeline(
            self.queue,
            http,
            RetryPolicy(settings.max_retries),
            settings.concurrency,
            lambda: CORE_SDK_HEADER_ENTRY,
            latch=False,
            token=settings.token.current,
            ping=self._ping,
            limits=replace(BULK_LIMITS, max_items=settings.batch, max_lanes=settings.batch),
            around_api=lambda api: MeteredApi(api, self.meter),
            around_delivery=lambda delivery: MeteredDelivery(delivery, self.meter),
            observer=self.meter,
            outage=self.queue.consumer.outage,
            endpoint=Endpoint(plain_url(http.api_url), _URL_SETTING, _TOKEN_SETTING),
        )
        self.executor, self.breaker = self.pipeline.executor, self.pipeline.breaker
        self.health = Health(lambda: self.executor.prefetched, self.meter)
        self._watch = Watch(
            self.queue,
            self.executor,
            self.breaker,
            self.health,
            self.meter,
            self.registry,
            asked_partitions(settings.transport),
        )
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Ask it to stop: what is in flight is finished, the rest is released."""
        self._stop.set()

    async def run(self) -> bool:
        """Work until it is told to stop, or everything is done where that is what it was told to wait for.

        Returns:
            Whether it ended within its grace period with nothing but what the broker still holds.

        Raises:
            ExceptionGroup: Something beside the executor failed unexpectedly. What was in flight is finished,
                and the rest released.
        """
        logger.info(
            "worker %d takes from %s and posts to %s, %d requests at a time",
            os.getpid(),
            self.queue.broker.name,
            urlsplit(self._settings.api_url).hostname,  # the URL may hold a password
            self._settings.concurrency,
        )
        try:
            host, port = self._settings.metrics_host, self._settings.metrics_port
            with serving(host, port, self.registry, self.health) if port else nullcontext():
                self.executor.start()
                async with asyncio.TaskGroup() as group:
                    beside = [
                        group.create_task(self._watch.run(), name="watch"),
                        group.create_task(self.breaker.check(), name="check-token"),
                        group.create_task(self._keep_aside(), name="aside"),
                    ]
                    if self._settings.drain:
                        beside.append(group.create_task(self._stop_once_drained(), name="drain"))
                    try:
                        await self._stop.wait()
                    finally:
                        released = await self._end()
                        for task in beside:
                            task.cancel()
                return released
        finally:
            await self.pipeline.http.close()

    async def _ping(self) -> Reply:
        if self.breaker.state.token_refused:
            self._settings.token.reread()
        return await self.pipeline.http.ping()

    async def _keep_aside(self) -> None:
        """Leave the partitions to workers with a good token for as long as the API refuses this one's."""
        while True:
            if self.breaker.state.token_refused:
                self.queue.consumer.stand_aside("its API token is refused")
                # Without partitions there is nothing to send, so nobody else may be there to probe.
                await self.breaker.wait()
                self.queue.consumer.rejoin()
            await asyncio.sleep(_LOOK)

    async def _end(self) -> bool:
        """Finish what is in flight, release the rest and every partition."""
        deadline = asyncio.get_running_loop().time() + self._settings.grace
        prefetched = self.executor.prefetched
        # A little of the grace period is for letting go of the partitions.
        await self.executor.stop(max(0.1, self._settings.grace * 0.8), drain=False)
        try:
            async with asyncio.timeout_at(deadline):
                await self.queue.disconnect()
        except TimeoutError:
            logger.warning("the broker did not take the partitions back in time: their leases run out")
            return False
        account = self.executor.account
        logger.info(
            "stopped: %d received, %d settled (%d of them overtaken), %d superseded, %d dead-lettered, "
            "%d released (of %d prefetched at the end)",
            account.received,
            account.settled,
            account.overtaken,
            account.superseded,
            account.dead_lettered,
            account.released,
            prefetched,
        )
        return True

    async def _stop_once_drained(self) -> None:
        empty = 0
        while empty < 2:  # one look may fall between two of the broker's own steps
            await asyncio.sleep(_LOOK)
            try:
                left = await self.queue.depth()
            except BrokerError:
                empty = 0
                continue
            done = left == self.executor.prefetched == self.queue.size() == 0
            empty = empty + 1 if done else 0
        logger.info("everything is settled or dead-lettered")
        self.stop()
