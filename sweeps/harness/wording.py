"""Words for messages and titles."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """The count with its noun, such as "1 seed" and "1,000 seeds".

    Args:
        count: Number of things.
        noun: The noun in the singular. Its plural ends in "s".
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
