"""The rules of lanes, one by one, and all together against a model."""

from collections import defaultdict

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from prefactor_core.execution.dependents import Dependents
from prefactor_core.execution.handler import BatchLimits
from prefactor_core.execution.lanes import Lanes
from prefactor_core.execution.outcome import NOT_REACHED, SETTLED, Apart, Dead, Outcome, Retry, Settled
from prefactor_core.execution.retry import RetryPolicy
from prefactor_core.operations import Operation
from prefactor_core.queue.base import Delivery
from tests.engine.setups import WIDE, Switch, lane_of, owned
from tests.engine.virtual import each
from tests.support.operations import create, dice, finish, finish_span, key_of, life, quality, register, start


class Item:
    def __init__(self, name: str, size: int = 10) -> None:
        self.name = name
        self.size = size


def make(max_retries: int = 3, dependents: Dependents | None = None) -> Lanes[Item]:
    retry = RetryPolicy(max_retries=max_retries, rng=dice(1))
    return Lanes(retry, lambda item: None if item.name[0] == "-" else item.name[0], dependents)


def with_life(*operations: Operation) -> Lanes[Operation]:
    lanes: Lanes[Operation] = Lanes(RetryPolicy(max_retries=2, rng=dice(1)), lane_of, Dependents())
    for operation in operations:
        lanes.add(Delivery(operation))
    return lanes


def fill(lanes: Lanes[Item], names: str, size: int = 10) -> None:
    for name in names.split():
        lanes.add(Delivery(Item(name, size)))


def names(batch: list[Delivery[Item]]) -> str:
    return " ".join(delivery.item.name for delivery in batch)


def test_a_batch_takes_whole_prefixes_and_nothing_twice() -> None:
    lanes = make()
    fill(lanes, "a1 b1 a2 c1 a3")
    assert names(lanes.take(WIDE, 0)) == "a1 a2 a3 b1 c1"
    assert lanes.take(WIDE, 0) == []
    fill(lanes, "a4")
    assert lanes.take(WIDE, 0) == [], "one batch of a lane at a time"


def test_limits_of_items_lanes_and_bytes() -> None:
    lanes = make()
    fill(lanes, "a1 a2 b1 b2 c1 c2")
    assert names(lanes.take(BatchLimits(3, 1 << 40, 10), 0)) == "a1 a2 b1"
    assert names(lanes.take(BatchLimits(9, 1 << 40, 1), 0)) == "c1 c2"
    lanes = make()
    fill(lanes, "a1 a2 b1 b2 c1 c2")
    assert names(lanes.take(BatchLimits(9, 25, 10), 0)) == "a1 a2"
    assert names(lanes.take(BatchLimits(9, 5, 10), 0)) == "b1", "one too large goes alone"


def test_each_lane_has_its_turn() -> None:
    lanes = make()
    fill(lanes, " ".join(f"a{number}" for number in range(100)) + " b1 c1")
    few = BatchLimits(10, 1 << 40, 10)
    first = lanes.take(few, 0)
    second = lanes.take(few, 0)
    assert names(second) == "b1 c1"
    lanes.resolve(first, [SETTLED] * 10, 0)
    lanes.resolve(second, [SETTLED] * 2, 0)
    fill(lanes, "b2")
    batch = lanes.take(few, 0)
    lanes.resolve(batch, [SETTLED] * len(batch), 0)
    assert "b2" in names(batch) + " " + names(lanes.take(few, 0))


def test_a_lane_that_was_not_reached_goes_before_those_that_were() -> None:
    """Or a lane whose every item ends the request keeps those behind it waiting until it is through."""
    lanes = make()
    fill(lanes, "a1 a2 a3 a4 b1 c1")
    batch = lanes.take(WIDE, 0)
    assert names(batch) == "a1 a2 a3 a4 b1 c1"
    lanes.resolve(batch, [Dead("conflict"), *[NOT_REACHED] * 5], 0)
    assert names(lanes.take(WIDE, 0)).startswith("b1 c1")


def test_a_lane_that_fails_in_company_twice_travels_alone() -> None:
    lanes = make()
    fill(lanes, "a1 a2 b1")
    lanes.resolve(lanes.take(WIDE, 0), [Retry("x")] * 3, 0)
    batch = lanes.take(WIDE, 1000)
    assert sorted(names(batch).split()) == ["a1", "a2", "b1"]
    lanes.resolve(batch, [Retry("x")] * 3, 1000)
    both = {names(lanes.take(WIDE, 2000)), names(lanes.take(WIDE, 2000))}
    assert both == {"a1 a2", "b1"}


def test_attempts_count_only_alone() -> None:
    lanes = make(max_retries=1)
    fill(lanes, "a1 a2 b1")
    time = 0.0
    sizes = []
    while True:
        time += 1000
        batch = lanes.take(WIDE, time)
        if names(batch) == "b1":
            lanes.resolve(batch, [SETTLED], time)
            continue
        sizes.append(len(batch))
        resolution = lanes.resolve(batch, [Retry("x")] * len(batch), time)
        if resolution.dead:
            break
    assert sizes == [3, 3, 2, 1, 1]
    ((delivery, dead),) = resolution.dead
    assert delivery.item.name == "a1"
    assert dead.attempts == 2
    assert names(lanes.take(WIDE, time)) == "a2", "the next has attempts of its own"
    assert not lanes.resolve(list(lanes._lanes["a"].line), [Retry("x")], time).dead


def test_weightless_failures_never_count_but_wait_longer() -> None:
    lanes = make(max_retries=0)
    fill(lanes, "a1")
    time = 0.0
    for _ in range(500):
        batch = lanes.take(WIDE, time)
        assert len(batch) == 1
        assert lanes.resolve(batch, [Retry("away", weight=0.0)], time).dead == []
        due = lanes.next_due()
        assert due is not None
        assert time <= due <= time + 60
        time = due


def test_retry_after_is_a_floor_of_the_backoff() -> None:
    lanes = make()
    fill(lanes, "a1")
    lanes.resolve(lanes.take(WIDE, 0), [Retry("x", retry_after=100)], 0)
    assert lanes.take(WIDE, 99.9) == []
    assert names(lanes.take(WIDE, 101.1)) == "a1"


def test_a_success_clears_the_record() -> None:
    lanes = make(max_retries=2)
    fill(lanes, " ".join(f"a{number}" for number in range(20)))
    time = 0.0
    for _ in range(3):
        time += 1000
        batch = lanes.take(WIDE, time)
        lanes.resolve(batch, [Retry("x")] * len(batch), time)
    batch = lanes.take(WIDE, time + 1000)
    assert len(batch) == 1
    lanes.resolve(batch, [SETTLED], time)
    fill(lanes, "b1")
    lengths = []
    while batch := lanes.take(WIDE, time):
        lengths.append(len(batch))
        lanes.resolve(batch, [SETTLED] * len(batch), time)
    assert lengths[0] >= 2, "it does not go back to company at once"
    assert sum(lengths) == 20


def test_apart_narrows_at_once_and_alone() -> None:
    lanes = make()
    fill(lanes, "a1 a2 a3 a4 b1")
    lanes.resolve(lanes.take(WIDE, 0), [Apart("large")] * 5, 0)
    assert names(lanes.take(WIDE, 0)) == "a1 a2"
    assert names(lanes.take(WIDE, 0)) == "b1"


def test_what_depends_on_a_lost_one_is_dead_lettered() -> None:
    operations = [
        create("a", "a-1"),
        create("a", "a-2", "a-1"),
        create("a", "a-3"),
        finish_span("a", "a-2"),
        finish_span("a", "a-3"),
        finish_span("a", "a-1"),
    ]
    lanes = with_life(register("a"), start("a"), *operations, finish("a"), *life("b"))
    batch = lanes.take(WIDE, 0)
    outcomes: list[Outcome] = [NOT_REACHED] * len(batch)
    outcomes[:3] = [SETTLED, SETTLED, Dead("refused")]
    kept: list[str] = []
    dead_lettered = [key_of(dead.item) for _, dead in lanes.resolve(batch, outcomes, 0).dead[1:]]
    for _ in range(20):
        batch = lanes.take(WIDE, 0)
        kept += [key_of(delivery.item) for delivery in batch if delivery.item.instance_id == "a"]
        resolution = lanes.resolve(batch, [SETTLED] * len(batch), 0)
        dead_lettered += [key_of(dead.item) for _, dead in [*lanes.unsent.dead, *resolution.dead]]
        lanes.unsent.dead.clear()
    assert kept == ["a-3:create", "a-3:finish", "a:finish"]
    assert dead_lettered == ["a-2:create", "a-2:finish", "a-1:finish"]
    assert lanes.prefetched == lanes.prefetched_bytes == 0


class LanesAgainstModel(RuleBasedStateMachine):
    """Random deliveries, batches, outcomes and owners; the model is a list for each lane."""

    def __init__(self) -> None:
        super().__init__()
        self.lanes = make(max_retries=1)
        self.owner = Switch()
        self.model: dict[str, list[Delivery[Item]]] = defaultdict(list)
        self.out: list[list[Delivery[Item]]] = []
        self.time = 0.0
        self.count = 0
        self.gone: set[Delivery[Item]] = set()

    @rule(lanes=st.text("abcd-", min_size=1, max_size=8), size=st.integers(1, 40))
    def add(self, lanes: str, size: int) -> None:
        for lane in lanes:
            self.count += 1
            delivery = owned(Item(f"{lane}{self.count}", size), self.owner)
            self.lanes.add(delivery)
            self.model[self._lane(delivery)].append(delivery)

    @rule()
    def change_hands(self) -> None:
        self.owner.current = False
        self.owner = Switch()

    @rule(items=st.integers(1, 8), size=st.integers(1, 120), lanes=st.integers(1, 5))
    def take(self, items: int, size: int, lanes: int) -> None:
        batch = self.lanes.take(BatchLimits(items, size, lanes), self.time)
        revoked, self.lanes.unsent.revoked = self.lanes.unsent.revoked, []
        self._give_back(revoked)
        assert not any(one.revoked for one in batch)
        if not batch:
            return
        assert len(batch) <= items
        assert len(batch) == 1 or sum(delivery.size for delivery in batch) <= size
        groups = self._groups(batch)
        assert len(groups) <= lanes
        busy = {self._lane(delivery) for other in self.out for delivery in other}
        for lane, mine in groups.items():
            assert lane not in busy, "two batches of a lane are out"
            assert self.model[lane][: len(mine)] == mine, "not its prefix"
        self.out.append(batch)

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def resolve(self, data: st.DataObject) -> None:
        batch = self.out.pop(data.draw(st.integers(0, len(self.out) - 1)))
        outcome: st.SearchStrategy[Outcome] = st.sampled_from(
            [SETTLED, SETTLED, Settled(overtaken=True), NOT_REACHED, Dead("no"), Apart("large"), Retry("x"),
             Retry("away", weight=0.0), Retry("half", weight=0.5, retry_after=3)]
        )  # fmt: skip
        outcomes = data.draw(st.lists(outcome, min_size=len(batch), max_size=len(batch)))
        resolution = self.lanes.resolve(batch, outcomes, self.time)
        told = dict(zip(batch, outcomes, strict=True))
        for delivery in resolution.settled:
            assert isinstance(told[delivery], Settled)
        dead = [delivery for delivery, _ in resolution.dead]
        assert all(isinstance(told[delivery], Dead | Retry) for delivery in dead)
        expected = []
        for mine in self._groups(batch).values():
            for delivery in mine:
                if not isinstance(told[delivery], Settled | Dead):
                    break
                expected.append(delivery)
        given_up = [delivery for delivery in dead if isinstance(told[delivery], Retry)]
        gone = [*resolution.settled, *dead]
        assert sorted(map(id, gone)) == sorted(map(id, expected + given_up))
        assert not self.gone & set(gone)
        self.gone.update(gone)
        for delivery in gone:
            self.model[self._lane(delivery)].remove(delivery)
        self._give_back(resolution.revoked)

    @rule(seconds=st.floats(0, 70))
    def wait(self, seconds: float) -> None:
        self.time += seconds

    @rule()
    def empty_out(self) -> None:
        everything = self.lanes.empty_out()
        left = {lane: mine for lane, mine in self.model.items() if mine}
        assert self._groups(everything) == left
        self.model.clear()
        self.out.clear()

    @invariant()
    def the_sums_are_exact(self) -> None:
        left = [delivery for mine in self.model.values() for delivery in mine]
        assert self.lanes.prefetched == len(left)
        assert self.lanes.prefetched_bytes == sum(delivery.size for delivery in left)

    def teardown(self) -> None:
        """Nothing is stuck: in the end everything can be settled."""
        for batch in self.out:
            self.lanes.resolve(batch, [NOT_REACHED] * len(batch), self.time)
        for _ in range(2 * self.count + 2):
            self.time += 1000
            batch = self.lanes.take(WIDE, self.time)
            self.lanes.resolve(batch, [SETTLED] * len(batch), self.time)
        assert self.lanes.prefetched == 0
        assert not self.lanes._lanes, "an empty lane is kept"

    def _give_back(self, revoked: list[Delivery[Item]]) -> None:
        for delivery in revoked:
            assert delivery.revoked
            assert self.model[self._lane(delivery)].pop(0) is delivery

    def _lane(self, delivery: Delivery[Item]) -> str:
        return delivery.item.name if delivery.item.name[0] == "-" else delivery.item.name[0]

    def _groups(self, batch: list[Delivery[Item]]) -> dict[str, list[Delivery[Item]]]:
        groups: dict[str, list[Delivery[Item]]] = {}
        for delivery in batch:
            groups.setdefault(self._lane(delivery), []).append(delivery)
        return groups


TestLanesAgainstModel = LanesAgainstModel.TestCase
TestLanesAgainstModel.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@each("failures", [1, 2, 5, 64, 10_000])
def test_backoff_is_bounded(failures: int) -> None:
    policy = RetryPolicy(base=1.0, multiplier=2.0, cap=60.0, rng=dice(1))
    bound = min(60.0, 2.0 ** min(failures - 1, 63))
    waits = [policy.delay(failures, 5.0) for _ in range(300)]
    assert 5 <= min(waits) <= 5 + bound / 10
    assert 5 + bound * 0.9 <= max(waits) <= 5 + bound


# -- how often a dead letter was tried

SUBJECT = quality("a", 1)
REFUSED = Dead("rejected: HTTP 404", rejected=True)


def tried(lanes: Lanes[Operation], *rounds: list[Outcome]) -> dict[str, int]:
    """Play rounds, each the outcomes of the next batch, and return the attempts of each dead letter."""
    found: dict[str, int] = {}
    time = 0.0
    for outcomes in rounds:
        time += 10_000
        batch = lanes.take(WIDE, time)
        padded = [*outcomes, *[NOT_REACHED] * (len(batch) - len(outcomes))]
        resolution = lanes.resolve(batch, padded, time)
        found |= {key_of(dead.item): dead.attempts for _, dead in resolution.dead}
    lanes.take(WIDE, time + 10_000)
    return found | {key_of(dead.item): dead.attempts for _, dead in lanes.unsent.dead}


@each(
    "rounds, attempts",
    [
        ([[REFUSED]], 1),
        ([[Dead("conflict", fatal=False)]], 1),
        ([[Apart("HTTP 400")], [REFUSED]], 1),
        ([[NOT_REACHED], [Retry("away", weight=0.0)], [REFUSED]], 1),
        ([[Retry("HTTP 500")], [REFUSED]], 2),
        ([[Retry("HTTP 500")], [Retry("HTTP 500")], [REFUSED]], 3),
        ([[Retry("HTTP 500")]] * 3, 3),
        ([[Dead("the payload lacks 'name'", sent=False)]], 0),
    ],
)
def test_attempts_are_how_often_it_was_sent_on_its_own_account(
    rounds: list[list[Outcome]], attempts: int
) -> None:
    assert tried(with_life(SUBJECT), *rounds) == {key_of(SUBJECT): attempts}


def test_a_dependent_that_was_never_sent_has_no_attempts() -> None:
    lanes = with_life(register("a"), start("a"), quality("a", 1))
    assert tried(lanes, [REFUSED]) == {"a:register": 1, "a:starting": 0, "a:quality:1": 0}


def test_each_operation_has_attempts_of_its_own() -> None:
    lanes = with_life(quality("a", 1), quality("a", 2), quality("a", 3))
    found = tried(lanes, [Retry("HTTP 500")], [SETTLED], [REFUSED], [REFUSED])
    assert found == {"a:quality:2": 1, "a:quality:3": 1}


def test_attempts_that_crashed_earlier_workers_count() -> None:
    lanes = with_life()
    delivery = Delivery(SUBJECT)
    delivery.crashes = 2
    lanes.add(delivery)
    assert tried(lanes, [REFUSED]) == {key_of(SUBJECT): 3}
