"""What the service has asked of running instances, and who is told."""

import asyncio

import pytest

from prefactor_core.monitoring.termination_monitor import TerminationMonitor


@pytest.fixture
def monitor() -> TerminationMonitor:
    return TerminationMonitor()


def told(monitor: TerminationMonitor) -> tuple[bool, str | None]:
    return monitor.get_termination_event().is_set(), monitor.termination_reason


def test_the_finish_of_an_instance_clears_its_mark_and_its_reason(monitor: TerminationMonitor) -> None:
    event = monitor.get_termination_event
    monitor.watch("one")
    monitor.terminated("one", "enough")
    monitor.terminated("one", "the first reason stands")
    assert told(monitor) == (True, "enough")
    monitor.finished("one")
    assert (event().is_set(), told(monitor), monitor.reason("one")) == (False, (False, None), None)
    monitor.watch("two")
    assert (event().is_set(), told(monitor)) == (False, (False, None))
    # A reply that comes after the finish is about that instance alone.
    monitor.terminated("one", "late")
    assert monitor.get_termination_event("one").is_set()
    assert (event().is_set(), told(monitor)) == (False, (False, None))


def test_an_agent_sees_that_it_was_asked_to_stop_when_its_client_is_closed(
    monitor: TerminationMonitor,
) -> None:
    for instance_id in ("one", "two"):
        monitor.watch(instance_id)
    monitor.terminated("two", "enough")
    monitor.all_finished()
    assert monitor.running() == []
    assert told(monitor) == (True, "enough")


def test_subscribers_are_told_once_in_their_order(
    monitor: TerminationMonitor, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[str] = []

    def broken() -> None:
        calls.append("broken")
        raise RuntimeError("no")

    unsubscribe = monitor.subscribe(broken)
    monitor.subscribe(lambda: calls.append("other"))
    monitor.watch("one")
    for _ in range(2):
        monitor.terminated("one", None)
    assert calls == ["broken", "other"]
    assert "RuntimeError: no" in caplog.text
    for _ in range(2):
        unsubscribe()
    monitor.finished("one")
    monitor.terminated("one", "late")
    assert calls == ["broken", "other"], "of what is finished nobody is told"
    monitor.watch("two")
    monitor.detect_termination("found out by itself")
    assert calls == ["broken", "other", "other"]
    assert monitor.reason("two") == "found out by itself"


def test_after_a_reset_only_the_next_instance_can_be_marked(monitor: TerminationMonitor) -> None:
    monitor.watch("one")
    monitor.detect_termination("enough")
    monitor.reset()
    assert told(monitor) == (False, None)
    monitor.detect_termination("stale")
    monitor.sync(None)
    monitor.detect_termination("stale")
    assert told(monitor) == (False, None)
    monitor.sync("of another process")
    assert monitor.running() == ["of another process"]
    monitor.detect_termination("enough")
    monitor.sync("of another process")
    assert told(monitor) == (True, "enough"), "it is the same instance"


def test_a_destroyed_monitor_marks_nothing_and_tells_nobody(monitor: TerminationMonitor) -> None:
    monitor.subscribe(lambda: pytest.fail("told"))
    monitor.watch("one")
    monitor.destroy()
    monitor.terminated("one", "enough")
    monitor.detect_termination("enough")
    assert told(monitor) == (False, None)


def test_what_a_subscriber_raises_reaches_nobody(
    monitor: TerminationMonitor, caplog: pytest.LogCaptureFixture
) -> None:
    """Not even a cancellation, which a cancelled future's ``result()`` raises, too."""
    calls: list[str] = []

    def cancelled() -> None:
        raise asyncio.CancelledError

    monitor.subscribe(cancelled)
    monitor.subscribe(lambda: calls.append("second"))
    monitor.watch("one")
    monitor.terminated("one", None)
    assert calls == ["second"]
    assert caplog.messages == ["prefactor: what was subscribed to terminations has failed"]
