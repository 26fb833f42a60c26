"""Traces as trees, and values as the few words that fit into one."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final

from rich.text import Text
from rich.tree import Tree

from prefactor_worker.demo.readback import Trace, TraceSpan

_STYLES: Final = {"complete": "green", "failed": "bold red", "cancelled": "yellow"}
_ALIKE_SHOWN: Final = 3
_LONGEST_VALUE: Final = 48
_PARTS_SHOWN: Final = 3


def trace_tree(trace: Trace, *, full: bool) -> Tree:
    """Return an agent instance with its spans.

    Args:
        trace: As it was read back.
        full: Whether to show all of many spans that are alike.
    """
    label = Text("agent instance ", style="bold")
    label.append(trace.instance_id, style="dim")
    _add_outcome(label, trace.status, trace.seconds)
    tree = Tree(label)
    _grow(tree, trace.spans, full=full)
    return tree


def _grow(tree: Tree, spans: Sequence[TraceSpan], *, full: bool) -> None:
    for line, children in _lines(spans, full=full):
        _grow(tree.add(line), children, full=full)


def _lines(spans: Sequence[TraceSpan], *, full: bool) -> Iterator[tuple[Text, Sequence[TraceSpan]]]:
    """Yield a line for each span; of many complete ones of a type, one for those beyond the first."""
    alike = Counter(span.schema_name for span in spans if _is_ordinary(span))
    shown: Counter[str] = Counter()
    for span in spans:
        hidden = alike[span.schema_name] - _ALIKE_SHOWN
        if full or not _is_ordinary(span) or hidden < 2:
            yield _span_line(span), span.children
            continue
        shown[span.schema_name] += 1
        if shown[span.schema_name] <= _ALIKE_SHOWN:
            yield _span_line(span), span.children
        elif shown[span.schema_name] == _ALIKE_SHOWN + 1:
            yield Text(f"{hidden} more {clean(span.schema_name)}, complete", style="dim"), ()


def _is_ordinary(span: TraceSpan) -> bool:
    return span.status == "complete" and not span.children


def _span_line(span: TraceSpan) -> Text:
    line = Text(clean(span.schema_name), style="cyan", no_wrap=True, overflow="ellipsis")
    _add_outcome(line, span.status, span.seconds)
    line.append(f"  {_brief(span.payload)}", style="default")
    if span.result:
        failed = span.status == "failed"
        line.append(f"\n→ {_brief(span.result)}", style="red" if failed else "dim")
    return line


def _add_outcome(line: Text, status: str, seconds: float | None) -> None:
    line.append(f"  {status}", style=_STYLES.get(status, "magenta"))
    if seconds is not None:
        line.append(f"  {duration(seconds)}", style="blue")


def _brief(value: Any) -> str:
    """Put a value into a few words."""
    if isinstance(value, dict):
        parts = [f"{clean(str(key))}: {_brief(part)}" for key, part in value.items()]
        return ", ".join(parts)
    if isinstance(value, list):
        parts = [_brief(part) for part in value[:_PARTS_SHOWN]]
        if len(value) > _PARTS_SHOWN:
            parts.append(f"{len(value) - _PARTS_SHOWN} more")
        return f"[{'; '.join(parts)}]"
    text = clean(str(value))
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"


def clean(text: str) -> str:
    """Replace what a terminal would obey: the words come from files."""
    return "".join(character if character.isprintable() else " " for character in text)


def duration(seconds: float) -> str:
    """Return seconds in the unit that fits."""
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 1:
        return f"{seconds * 1e3:.1f} ms"
    return f"{seconds:.2f} s"
