"""Locks, and what finalisers and signal handlers ask for amid a call that holds one."""

import asyncio
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable

import pytest

from prefactor_core.exceptions import ClientClosedError
from prefactor_core.exclusive import Exclusive, _busy, afterwards
from prefactor_core.operations import Operation
from prefactor_core.recording.entrance import Entrance
from prefactor_core.recording.gate import Gate
from prefactor_core.recording.handover import Handover
from prefactor_core.recording.records import Records
from tests.support.threads import Gone, in_threads
from tests.unit.samples import INSTANCE

_DEADLINE = 120.0


@pytest.fixture(autouse=True)
def nothing_is_left() -> object:
    """No thread is taken for busy once a test is over."""
    yield
    assert not _busy


def test_what_is_asked_for_amid_a_call_follows_it_in_order() -> None:
    one, other = Exclusive(), Exclusive()
    done: list[str] = []

    def act() -> str:
        done.append("begins")
        assert one.alone(done.append, "one") is None
        assert other.alone(done.append, "other") is None
        afterwards(done.append, "afterwards")
        assert one.hold(len, done) == 1, "what leads to no more is done at once"
        done.append("ends")
        return "result"

    assert one.alone(act) == "result"
    assert done == ["begins", "ends", "one", "other", "afterwards"]


def test_ten_thousand_finalisers_amid_one_call_all_have_their_turn() -> None:
    one = Exclusive()
    done: list[int] = []
    gc.disable()
    try:
        for number in range(10_000):
            Gone(lambda number=number: one.alone(done.append, number))  # type: ignore[misc]
        one.alone(gc.collect)
    finally:
        gc.enable()
    assert sorted(done) == list(range(10_000))


def test_what_is_put_off_may_itself_be_interrupted_by_more() -> None:
    one = Exclusive()
    done: list[int] = []

    def act(depth: int) -> None:
        done.append(depth)
        if depth < 5_000:
            one.alone(act, depth + 1)

    act(0)
    one.alone(act, 1)
    assert done == [0, *range(1, 5_001), *range(1, 5_001)]


def test_two_threads_whose_finalisers_want_each_others_locks_both_go_on() -> None:
    one, other = Exclusive(), Exclusive()
    both = threading.Barrier(2)
    done: list[str] = []

    def program(mine: Exclusive, others: Exclusive) -> Callable[[], None]:
        def act() -> None:
            both.wait(_DEADLINE)
            others.alone(done.append, "amid")
            both.wait(_DEADLINE)
            done.append("act")

        return lambda: mine.alone(act)

    in_threads(program(one, other), program(other, one))
    assert sorted(done) == ["act", "act", "amid", "amid"]


def test_what_fails_late_fails_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    one = Exclusive()

    def fail(error: Exception) -> None:
        raise error

    def act() -> int:
        one.alone(fail, ClientClosedError("closed"))
        one.alone(fail, ZeroDivisionError("nobody's"))
        return 1

    assert one.alone(act) == 1
    assert [record.getMessage() for record in caplog.records] == [
        "prefactor: a call amid another one has failed: ZeroDivisionError"
    ]


def test_an_interruption_leaves_nothing_locked_or_put_off() -> None:
    one = Exclusive()
    done: list[str] = []

    def act() -> None:
        one.alone(done.append, "put off")
        raise KeyboardInterrupt

    def late() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        one.alone(act)
    assert done == ["put off"]
    with pytest.raises(KeyboardInterrupt):
        one.alone(one.alone, late)
    in_threads(lambda: one.alone(done.append, "another thread"))
    assert one.alone(len, done) == 2


def test_exceptions_of_a_signal_handler_never_leave_a_thread_busy() -> None:
    """Soft time limits of task queues are such: they come at any step of the interpreter."""

    class TimeIsUpError(Exception):
        pass

    def handler(*_: object) -> None:
        raise TimeIsUpError

    one = Exclusive()
    before = signal.signal(signal.SIGPROF, handler)
    interrupted = 0
    try:
        while interrupted < 200:
            try:
                signal.setitimer(signal.ITIMER_PROF, 0.0003, 0.01)
                while True:
                    one.alone(one.hold, len, "")
            except TimeIsUpError:
                interrupted += 1
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
    assert not _busy
    in_threads(lambda: one.alone(len, ""))


def test_a_child_process_takes_no_thread_of_its_parents_for_busy() -> None:
    one = Exclusive()
    entered, leave = threading.Event(), threading.Event()

    def act() -> None:
        entered.set()
        leave.wait(_DEADLINE)

    thread = threading.Thread(target=one.alone, args=(act,))
    thread.start()
    entered.wait(_DEADLINE)
    child = os.fork()
    if child == 0:
        os._exit(len(_busy))
    leave.set()
    thread.join(_DEADLINE)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# -- the gate


class SlowHandover(Handover):
    """Takes operations while the test lets it."""

    def __init__(self) -> None:
        self.entered, self.leave = threading.Event(), threading.Event()
        self.events: list[str] = []

    def give(self, operations: tuple[Operation, ...] | list[Operation]) -> None:
        del operations
        self.entered.set()
        self.leave.wait(_DEADLINE)
        self.events.append("given")

    @property
    def put_count(self) -> int:
        return 0

    async def drain(self) -> None:
        await asyncio.sleep(0)


def refuse(*, puts: bool) -> None:
    raise ClientClosedError(f"{puts}")


@pytest.mark.parametrize("kept", ["kept", "forgotten", "of another process"])
def test_a_gate_that_is_shut_has_waited_for_every_call_that_was_taken(kept: str) -> None:
    gate = Gate(refuse, lambda: False)
    slow = SlowHandover()
    entrance = Entrance(gate, slow)
    records: Records = entrance.records
    record = records.apart(INSTANCE) if kept == "of another process" else records.of(INSTANCE)

    def act() -> None:
        if kept == "forgotten":  # as the finish of an instance does before it is given
            records.forget(record)
        entrance.give(())

    def shut() -> None:
        slow.entered.wait(_DEADLINE)
        gate.shut()
        slow.events.append("shut")

    def let_on() -> None:
        slow.entered.wait(_DEADLINE)
        slow.leave.wait(0.2)  # time enough for a gate that does not wait
        slow.leave.set()

    in_threads(lambda: record.alone(act), shut, let_on)
    assert slow.events == ["given", "shut"]
    with pytest.raises(ClientClosedError):
        record.alone(entrance.give, ())


def test_a_gate_can_be_shut_amid_a_call() -> None:
    gate = Gate(refuse, lambda: False)
    records = gate.records
    one, other = records.of(INSTANCE), records.of(INSTANCE[::-1])
    busy, leave = threading.Event(), threading.Event()

    def act() -> None:
        busy.set()
        leave.wait(_DEADLINE)

    def amid() -> None:
        busy.wait(_DEADLINE)
        gate.shut()
        leave.set()  # it has not waited for the other thread, which may be waiting for this one

    in_threads(lambda: other.alone(act), lambda: one.alone(amid))
    with pytest.raises(ClientClosedError):
        gate.check()


def test_records_that_are_dropped_are_held_by_nobody() -> None:
    records = Records()
    record = records.apart(INSTANCE)
    assert records.held() == [record]
    assert records.all() == []
    del record
    assert records.held() == []


def test_a_log_handler_that_records_under_a_lock_of_its_own_holds_nobody_up() -> None:
    """Whoever warns does so while it holds no lock: a handler of another thread's may want that."""
    one = Exclusive()
    lock = threading.RLock()
    entered = threading.Event()
    logger = logging.getLogger("prefactor_core.tests.afterwards")

    class Recording(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            with lock:
                entered.set()
                one.alone(len, record.getMessage())

    handler = Recording()
    logger.addHandler(handler)
    holding = threading.Event()

    def act() -> None:
        holding.set()
        entered.wait(_DEADLINE)  # the other thread's handler has the lock by now
        afterwards(logger.warning, "from within")

    def other() -> None:
        holding.wait(_DEADLINE)
        logger.warning("from without")

    try:
        in_threads(lambda: one.alone(act), other)
    finally:
        logger.removeHandler(handler)


def test_the_interpreter_switches_as_often_as_it_can_and_nobody_is_left_busy() -> None:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    ones = [Exclusive() for _ in range(3)]
    counts = [0, 0, 0]

    def count(at: int) -> None:
        counts[at] += 1

    def program() -> None:
        for number in range(3_000):
            ones[number % 3].alone(count, number % 3)

    try:
        in_threads(*[program] * 8)
    finally:
        sys.setswitchinterval(before)
    assert counts == [8_000] * 3
