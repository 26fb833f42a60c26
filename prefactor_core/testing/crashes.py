"""The contract, part 7: crashes are counted, and a clean end is none."""

from prefactor_core.broker.driver import MAX_ATTEMPTS
from prefactor_core.testing.base import Contract
from prefactor_core.testing.dead_letters import listed
from prefactor_core.testing.drivers import consuming, own, read
from prefactor_core.testing.operations import by_instance, interleaved, key_of, keys_of, note, notes
from prefactor_core.testing.receiving import eventually, handle, items, receive
from prefactor_core.testing.transport import Transport
from prefactor_core.testing.workers import Worker

_MOST_DEATHS = 15
_CLEAN_ENDS = 8


class CrashContract(Contract):
    """An operation that crashes its workers is dead-lettered, and nothing else is."""

    async def test_a_poison_is_set_aside(self, transport: Transport) -> None:
        """Given an operation that crashes its workers, when it did so thrice, then it is a dead letter."""
        url = transport.at(partitions=1)
        poison = note("bad", 1)
        before, after = [*notes("bad", 1), *notes("good", 4)], notes("good", 4, first=4)
        put = [*before, poison, *after, note("bad", 2)]
        await transport.put(*put, url=url)
        expected = [operation for operation in put if operation is not poison]
        handled: list[str] = []
        deaths = 0
        async with transport.shared(url) as observer:

            async def kills() -> bool:
                """Run a worker to its death, or until all is done; return whether it died."""
                async with Worker.running(url, die_on=[key_of(poison)]) as worker:

                    async def outcome() -> str:
                        if worker.dead:
                            return "dead"
                        all_handled = {*handled, *worker.keys("handled")} >= set(keys_of(expected))
                        return "done" if all_handled and await listed(observer) else "busy"

                    how = await eventually(outcome, lambda word: word != "busy", transport.patience)
                    if how == "dead":
                        assert await worker.died(transport.patience), "it died of something else"
                    else:
                        await worker.stop(transport.patience)
                    handled.extend(worker.keys("handled"))
                    return how == "dead"

            while await kills():
                deaths += 1
                assert deaths <= _MOST_DEATHS, "it goes on for ever"
            (letter,) = await listed(observer)
            envelope = letter.read()
            assert envelope is not None
            assert key_of(envelope.operation) == key_of(poison)
            assert "crash" in letter.reason
            assert deaths >= 2, "one death is bad luck"
        for keys in by_instance(expected).values():
            assert list(dict.fromkeys(key for key in handled if key in keys)) == keys

    async def test_a_clean_end_is_no_crash(self, transport: Transport) -> None:
        """Given consumers that end cleanly with operations, when that repeats, then none is dead-lettered."""
        url = transport.at(partitions=1)
        put = interleaved([notes("one", 3), notes("two", 3)])
        await transport.put(*put, url=url)
        for _ in range(_CLEAN_ENDS):
            async with transport.shared(url) as leaving:
                held = await receive(leaving, 1, transport.patience)
                await leaving.close()
                await leaving.release(held)
        async with transport.shared(url) as last:
            # All at once: none is handled with care.
            await last.release(await receive(last, len(put), transport.patience))
            got = await handle(last, len(put), transport.patience)
            assert by_instance(got) == by_instance(put)
            assert await listed(last) == []
            await eventually(last.depth, lambda depth: depth == 0, transport.patience)

    async def test_only_crashes_dead_letter_what_may_be_poison(self, transport: Transport) -> None:
        """Given what may be poison, when its workers end cleanly over and over, then it is none."""
        url = transport.at(partitions=1)
        put = notes("instance", 2)
        await transport.put(*put, url=url)
        for _ in range(3):
            async with Worker.running(url, die_on=[key_of(put[0])]) as worker:
                assert await worker.died(transport.patience)
        for _ in range(_CLEAN_ENDS):
            async with transport.shared(url) as leaving:
                held = await receive(leaving, 1, transport.patience)
                assert keys_of(items(held)) == keys_of(put[:1])
                await leaving.close()
                await leaving.release(held)
        async with transport.shared(url) as last:
            assert keys_of(await handle(last, 2, transport.patience)) == keys_of(put)
            assert await listed(last) == []

    async def test_only_crashes_count_as_attempts(self, transport: Transport) -> None:
        """Given a message in isolation, when attempts are withdrawn or released, then none counts."""
        url = transport.at(partitions=1)
        put = notes("instance", 2)
        await transport.put(*put, url=url)
        for _ in range(3):
            async with Worker.running(url, die_on=[key_of(put[0])]) as worker:
                assert await worker.died(transport.patience)
        async with transport.shared(url) as queue, consuming(queue.broker) as end:
            partition = await own(end, transport.patience)
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
                partition = await own(end, transport.patience)
                (message,) = await read(partition, 1)
                assert await partition.attempts(message) == before, "a released attempt counts"
                assert await partition.begin(message) is (before < MAX_ATTEMPTS)
                await partition.withdraw(message)
            assert not await partition.settle([message])
            await partition.release()

    async def test_one_crash_is_bad_luck(self, transport: Transport) -> None:
        """Given a worker killed once, when its successor handles the same, then that is settled."""
        url = transport.at(partitions=1)
        put = notes("instance", 5)
        await transport.put(*put, url=url)
        async with Worker.running(url, die_on=[key_of(put[2])]) as worker:
            assert await worker.died(transport.patience)
        async with transport.shared(url) as successor:
            assert keys_of(await handle(successor, 3, transport.patience)) == keys_of(put[2:])
            assert await listed(successor) == []
