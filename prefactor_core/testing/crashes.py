"""What crashes of workers lead to: they are counted, and a clean end is none."""

from prefactor_core.testing.dead_letters import listed, operations_of
from prefactor_core.testing.drivers import consuming, own, read
from prefactor_core.testing.operations import by_instance, interleaved, keys_of, note, notes
from prefactor_core.testing.processes import worker
from prefactor_core.testing.receiving import drained, eventually, handle, items, receive
from prefactor_core.testing.transport import Contract, Transport
from prefactor_core.transport import MAX_ATTEMPTS

_MOST_DEATHS = 15
_CLEAN_ENDS = 8


async def crash(transport: Transport, key: str, times: int) -> None:
    """Let so many workers die of the operation with this key."""
    for _ in range(times):
        async with worker(transport.url, die_on=[key]) as dying:
            assert await dying.died(transport.patience)


async def end_cleanly(transport: Transport, times: int) -> list[str]:
    """Let so many consumers end with an operation in hand; return the key of each, without repeats."""
    keys: list[str] = []
    for _ in range(times):
        async with transport.shared() as ending:
            held = await receive(ending, 1, transport.patience)
            keys += keys_of(items(held))
            await ending.close()
            await ending.release(held)
    return list(dict.fromkeys(keys))


class CrashContract(Contract):
    """An operation that crashes its workers is dead-lettered, and nothing else is."""

    async def test_a_poison_operation_is_dead_lettered(self, single: Transport) -> None:
        """Given an operation that crashes its workers, when it has crashed some, then it is a dead letter."""
        poison = note("bad", 1)
        before, after = [*notes("bad", 1), *notes("good", 4)], notes("good", 4, first=4)
        expected = [*before, *after, note("bad", 2)]
        await single.put(*before, poison, *after, note("bad", 2))
        handled: list[str] = []
        deaths = 0
        async with single.shared() as observer:

            async def kills() -> bool:
                """Run a worker to its death, or until all is done; return whether it died."""
                async with worker(single.url, die_on=keys_of([poison])) as running:

                    async def over() -> bool:
                        done = {*handled, *running.keys("handled")} >= set(keys_of(expected))
                        return running.dead or (done and bool(await listed(observer)))

                    await eventually(over, bool, single.patience)
                    if died := running.dead:
                        assert await running.died(single.patience), "it died of something else"
                    else:
                        await running.stop(single.patience)
                    handled.extend(running.keys("handled"))
                    return died

            while await kills():
                deaths += 1
                assert deaths <= _MOST_DEATHS, "it goes on for ever"
            (dead_letter,) = await listed(observer)
        assert keys_of(operations_of([dead_letter])) == keys_of([poison])
        assert "crash" in dead_letter.reason
        assert deaths >= 2, "one death is bad luck"
        for keys in by_instance(expected).values():
            assert list(dict.fromkeys(key for key in handled if key in keys)) == keys

    async def test_a_clean_end_is_no_crash(self, single: Transport) -> None:
        """Given consumers that end cleanly with operations, when that repeats, then none is dead-lettered."""
        put = interleaved([notes("one", 3), notes("two", 3)])
        await single.put(*put)
        await end_cleanly(single, _CLEAN_ENDS)
        async with single.shared() as last:
            # All at once: none is in isolation.
            await last.release(await receive(last, len(put), single.patience))
            got = await handle(last, len(put), single.patience)
            assert by_instance(got) == by_instance(put)
            assert await listed(last) == []
            await drained(last, single.patience)

    async def test_only_crashes_dead_letter_what_may_be_poison(self, single: Transport) -> None:
        """Given what may be poison, when its workers end cleanly over and over, then it is none."""
        put = notes("instance", 2)
        await single.put(*put)
        await crash(single, keys_of(put)[0], times=3)
        assert await end_cleanly(single, _CLEAN_ENDS) == keys_of(put[:1])
        async with single.shared() as last:
            assert keys_of(await handle(last, 2, single.patience)) == keys_of(put)
            assert await listed(last) == []

    async def test_only_crashes_count_as_attempts(self, single: Transport) -> None:
        """Given a message in isolation, when attempts are withdrawn or released, then none counts.

        Isolation ends for its owner once everything that may have crashed earlier ones is disposed of.
        """
        put = notes("instance", 2)
        await single.put(*put)
        await crash(single, keys_of(put)[0], times=3)
        async with single.shared() as queue, consuming(queue.broker) as end:
            partition = await own(end, single.patience)
            (message,) = await read(partition, 1)
            assert partition.isolated
            before = await partition.attempts(message)
            for _ in range(MAX_ATTEMPTS + 1):
                await partition.withdraw(message)  # none of this owner's
                assert await partition.begin(message) is (before < MAX_ATTEMPTS)
                assert await partition.attempts(message) == before, "this owner has not crashed"
                await partition.withdraw(message)
            assert await partition.attempts(message) == before
            for _ in range(MAX_ATTEMPTS + 1):
                # The owner ends cleanly without a withdrawal: the release takes the attempt back.
                assert await partition.begin(message) is (before < MAX_ATTEMPTS), "a released attempt counts"
                await partition.release()
                partition = await own(end, single.patience)
                (message,) = await read(partition, 1)
                assert await partition.attempts(message) == before, "a released attempt counts"
                assert await partition.begin(message) is (before < MAX_ATTEMPTS)
                await partition.withdraw(message)
            assert not await partition.settle([message])
            assert not await partition.settle(await read(partition, 1))
            assert not partition.isolated, "what crashed its owners is gone"
            await partition.release()
