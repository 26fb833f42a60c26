"""`prefactor-emulator verify`."""

import sys
from typing import Annotated

import typer
from pydantic_core import to_json

from prefactor_emulator.verify.compare import Comparison, Findings, compare
from prefactor_emulator.verify.files import VerifyInputError, read_effects, read_puts, read_terminated

_EXAMPLES = 5
_INSTANCES = 20


def verify_command(
    *,
    db: Annotated[str, typer.Option(metavar="PATH", help="The emulator's database.")],
    puts: Annotated[
        str,
        typer.Option(
            metavar="PATH",
            help='What agents put: a line {"instance_id", "type", "key"} each, in the order of the puts,'
            ' with types like "create_span".',
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Answer with JSON.")] = False,
) -> None:
    """Compare what agents put with what took effect: lost, doubled, out of order, unexpected.

    What took no effect since the service had terminated its instance counts as refused, not as lost. The exit
    status is 0 if all but that are 0, 1 if not, and 2 if there is nothing to compare.
    """
    try:
        outcome = compare(read_puts(puts), read_effects(db), read_terminated(db))
    except VerifyInputError as error:
        sys.stderr.write(f"prefactor-emulator verify: {error}\n")
        raise typer.Exit(2) from None
    sys.stdout.write(_as_json(outcome) if as_json else _as_text(outcome))
    raise typer.Exit(0 if outcome.clean else 1)


def _figures(outcome: Comparison) -> dict[str, int]:
    return {
        "puts": outcome.puts,
        "effects": outcome.effects,
        "instances": outcome.instances,
        "lost": outcome.lost,
        "doubled": outcome.doubled,
        "out_of_order": outcome.out_of_order,
        "unexpected": outcome.unexpected,
        "refused": outcome.refused,
    }


def _wrong(found: Findings) -> dict[str, tuple[str, ...]]:
    return {
        "lost": found.lost,
        "doubled": found.doubled,
        "out_of_order": found.out_of_order,
        "unexpected": found.unexpected,
    }


def _as_json(outcome: Comparison) -> str:
    findings = [
        {
            "instance_id": found.instance_id,
            **{name: {"count": len(keys), "first": keys[:_EXAMPLES]} for name, keys in _wrong(found).items()},
        }
        for found in outcome.findings
    ]
    report = {**_figures(outcome), "clean": outcome.clean, "findings": findings}
    return to_json(report, indent=2).decode() + "\n"


def _as_text(outcome: Comparison) -> str:
    lines = [f"{name.replace('_', ' '):<13}{number:>10,}" for name, number in _figures(outcome).items()]
    for found in outcome.findings[:_INSTANCES]:
        lines += ["", f"instance {found.instance_id}"]
        for name, keys in _wrong(found).items():
            if keys:
                more = ", ..." if len(keys) > _EXAMPLES else ""
                shown = ", ".join(keys[:_EXAMPLES]) + more
                lines.append(f"  {len(keys):,} {name.replace('_', ' ')}: {shown}")
    left_out = len(outcome.findings) - _INSTANCES
    if left_out > 0:
        lines += ["", f"and {left_out:,} more instances"]
    return "\n".join(lines) + "\n"
