"""Reading how a fault is described, option by option, with one clear line for every mistake."""

from collections.abc import Sequence


class FaultSpecError(ValueError):
    """A fault is described wrongly; the message is one line that says how to describe it."""


class Options:
    """The `key=value` part of a fault's description.

    Args:
        text: The options as they were given.
    """

    def __init__(self, text: str) -> None:
        self._values: dict[str, str] = {}
        self._asked: list[str] = []
        for pair in filter(None, text.split(",")):
            name, equals, value = pair.partition("=")
            if not equals or not name or not value:
                raise FaultSpecError(f"{pair!r} is not of the form key=value")
            if name in self._values:
                raise FaultSpecError(f"{name!r} is given twice")
            self._values[name] = value

    def number(self, name: str, default: float, most: float = 1e9) -> float:
        """Take a number that is not negative."""
        text = self._take(name)
        if text is None:
            return default
        try:
            number = float(text)
        except ValueError:
            number = -1.0
        if not 0 <= number <= most:
            raise FaultSpecError(f"{name} must be a number from 0 to {most:g}, not {text!r}")
        return number

    def whole(self, name: str, default: int, least: int, most: int) -> int:
        """Take a whole number."""
        found = self.whole_or_none(name, least, most)
        return default if found is None else found

    def whole_or_none(self, name: str, least: int, most: int) -> int | None:
        """Take a whole number whose absence has a meaning."""
        text = self._take(name)
        if text is None:
            return None
        if not (text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most):
            raise FaultSpecError(f"{name} must be a whole number from {least} to {most}, not {text!r}")
        return int(text)

    def status(self, default: int) -> int:
        """Take `status`, an HTTP status of the 4xx or 5xx kind."""
        return self.whole("status", default, 400, 599)

    def word(self, name: str, default: str, allowed: Sequence[str] = ()) -> str:
        """Take a text without commas, one of a few where there is a choice."""
        text = self._take(name)
        if text is None:
            return default
        if allowed and text not in allowed:
            raise FaultSpecError(f"{name} must be one of {', '.join(allowed)}, not {text!r}")
        return text

    def refuse_others(self, fault: str) -> None:
        """Refuse what no option was asked for."""
        if self._values:
            unknown = ", ".join(self._values)
            raise FaultSpecError(f"fault {fault!r} has no option {unknown}; it has {', '.join(self._asked)}")

    def _take(self, name: str) -> str | None:
        self._asked.append(name)
        return self._values.pop(name, None)
