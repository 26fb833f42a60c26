"""The checker finds what is wrong, says where, and is content with what is right."""

import random

from prefactor_core.operations import OperationType as PutType
from prefactor_emulator.model import OperationType
from prefactor_emulator.verify.compare import PUT_TYPES, Comparison, LoggedEffect, Put, compare
from tests.emulator.driver import CREATE, FINISH, FINISH_SPAN, QUALITY, REGISTER, START


def put(key: str, instance_id: str = "a", operation_type: OperationType = CREATE) -> Put:
    return Put(instance_id, operation_type, key)


def effect(
    key: str,
    instance_id: str = "a",
    operation_type: OperationType = CREATE,
    span_id: str | None = "",
    account: str = "acme",
) -> LoggedEffect:
    return LoggedEffect(
        account, instance_id, operation_type, f"span-of-{key}" if span_id == "" else span_id, key
    )


def figures(outcome: Comparison) -> tuple[int, int, int, int]:
    return outcome.lost, outcome.doubled, outcome.out_of_order, outcome.unexpected


PUTS = [put(key, instance_id) for key in "123456" for instance_id in "ab" for key in [instance_id + key]]
EFFECTS = [effect(each.key, each.instance_id) for each in PUTS]


def test_every_type_of_an_agent_is_known() -> None:
    assert set(PUT_TYPES) == {each.value for each in PutType}
    assert set(PUT_TYPES.values()) == set(OperationType) - {OperationType.TERMINATE_INSTANCE}


def test_all_is_well() -> None:
    outcome = compare(PUTS, EFFECTS)
    assert outcome == Comparison(puts=12, effects=12, instances=2, findings=())
    assert outcome.clean
    assert compare([], []).clean


def test_instances_do_not_order_each_other() -> None:
    by_instance = sorted(EFFECTS, key=lambda each: each.instance_id)
    assert compare(PUTS, by_instance).clean
    assert compare(PUTS, reversed(by_instance)).out_of_order == 10


def test_one_lost_or_doubled_effect_is_found() -> None:
    for index, wanted in enumerate(PUTS):
        outcome = compare(PUTS, EFFECTS[:index] + EFFECTS[index + 1 :])
        assert figures(outcome) == (1, 0, 0, 0), index
        (found,) = outcome.findings
        assert (found.instance_id, found.lost) == (wanted.instance_id, (wanted.key,))
        for later in (0, 1, 12):
            effects = list(EFFECTS)
            effects.insert(index + 1 + later, EFFECTS[index])
            outcome = compare(PUTS, effects)
            assert figures(outcome) == (0, 1, 0, 0), (index, later)
            assert outcome.findings[0].doubled == (wanted.key,)


def test_the_same_deed_under_two_keys_is_doubled() -> None:
    for operation_type in (REGISTER, START, FINISH, CREATE, FINISH_SPAN):
        span_id = "s" if operation_type in {CREATE, FINISH_SPAN} else None
        puts = [put("k1", "a", operation_type)]
        effects = [effect(key, "a", operation_type, span_id) for key in ("k1", "k2")]
        assert figures(compare(puts, effects)) == (0, 1, 0, 0), operation_type
        assert figures(compare(puts, reversed(effects))) == (0, 1, 0, 1), operation_type


def test_a_quality_may_be_recorded_twice_under_two_keys_but_not_under_one() -> None:
    puts = [put("k1", "a", QUALITY), put("k2", "a", QUALITY)]
    effects = [effect(key, "a", QUALITY, None) for key in ("k1", "k2")]
    assert compare(puts, effects).clean
    assert figures(compare(puts, [*effects, effects[0]])) == (0, 1, 0, 0)


def test_accounts_may_have_the_same_keys() -> None:
    puts = [put("k", "a"), put("k", "b")]
    assert compare(puts, [effect("k", "a"), effect("k", "b", account="other")]).clean
    assert compare(puts, [effect("k", "a"), effect("k", "b")]).doubled == 1


def test_one_misplaced_effect_is_found() -> None:
    for start, end in ((0, 4), (4, 0), (2, 10), (10, 2), (0, 10), (11, 1)):
        effects = list(EFFECTS)
        moved = effects.pop(start)
        effects.insert(end, moved)
        outcome = compare(PUTS, effects)
        assert figures(outcome) == (0, 0, 1, 0), (start, end)
        assert outcome.findings[0].out_of_order == (moved.key,)


def test_one_unexpected_effect_is_found() -> None:
    for stranger in (effect("new"), effect("new", "c"), effect("a1-again", "a", FINISH, None)):
        outcome = compare(PUTS, [stranger, *EFFECTS])
        assert figures(outcome) == (0, 0, 0, 1)
        assert outcome.findings[0].unexpected == (stranger.key,)


def test_an_effect_of_another_type_is_not_the_one_that_was_put() -> None:
    assert figures(compare([put("k")], [effect("k", "a", FINISH_SPAN)])) == (1, 0, 0, 1)


def test_what_was_put_twice_has_to_take_effect_once() -> None:
    assert compare([*PUTS, *PUTS[:5]], EFFECTS) == compare(PUTS, EFFECTS)


def test_everything_at_once_is_told_apart() -> None:
    puts = [put(f"{instance}{number:03}", instance) for number in range(100) for instance in "abc"]
    effects = [effect(each.key, each.instance_id) for each in puts]
    for seed in range(20):
        dice = random.Random(seed)  # noqa: S311 - chance for tests
        lost = set(dice.sample(range(300), 7))
        kept = [each for index, each in enumerate(effects) if index not in lost]
        for each in dice.sample(kept, 5):
            kept.insert(dice.randrange(kept.index(each) + 1, len(kept) + 1), each)
        for number in range(4):
            kept.insert(dice.randrange(len(kept)), effect(f"new-{number}"))
        outcome = compare(puts, kept)
        assert figures(outcome) == (7, 5, 0, 4), f"seed {seed}"
        found = {key for finding in outcome.findings for key in finding.lost}
        assert found == {puts[index].key for index in lost}, f"seed {seed}"


def test_a_long_run_is_compared_too() -> None:
    puts = [put(f"{number}", str(number % 100)) for number in range(100_000)]
    effects = [effect(each.key, each.instance_id) for each in puts]
    assert compare(puts, effects[1:] + effects[:1]).out_of_order == 1


def test_what_a_terminated_instance_refuses_is_not_lost() -> None:
    """Its spans from the termination on, the finish of what that has closed, and its own finish."""
    puts = [
        put("a-register", operation_type=REGISTER),
        put("1"),
        put("2"),
        put("1-finish", operation_type=FINISH_SPAN),
        put("3"),
        put("a-finish", operation_type=FINISH),
        put("b1", "b"),
    ]
    effects = [effect("a-register", operation_type=REGISTER, span_id=None), effect("1"), effect("2")]
    outcome = compare(puts, [*effects, effect("b1", "b")], {"a"})
    assert (outcome.clean, outcome.refused) == (True, 3)
    assert compare(puts, effects, {"a"}).lost == 1, "of the other instance"
    assert compare(puts, [*effects, effect("b1", "b")]).lost == 3, "none is terminated"


def test_what_was_lost_before_a_termination_is_found() -> None:
    puts = [put("1"), put("2"), put("3")]
    outcome = compare(puts, [effect("2")], {"a"})
    assert (outcome.findings[0].lost, outcome.refused) == (("1",), 1)


def test_a_terminated_instance_takes_qualities_all_the_same() -> None:
    puts = [put("1"), put("score", operation_type=QUALITY)]
    assert compare(puts, [effect("1")], {"a"}).findings[0].lost == ("score",)
