"""The number of partitions that a URL asks for, and the one that counts."""


def disagreement(asked: int | None, recorded: int) -> str | None:
    """Return what is wrong with the number of partitions in a URL, if anything is.

    Args:
        asked: What the URL says, if it does.
        recorded: What the broker says.
    """
    if asked is None or asked == recorded:
        return None
    return (
        f"the URL asks for {asked} partitions, and the {recorded} that are recorded count; leave the option "
        "out, or use another prefix"
    )
