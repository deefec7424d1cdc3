"""XShot Bench: a benchmark harness for few-shot cross-modal retrieval.

The folder of this file is the package ``xshot_bench``; ``benchmarks``, ``methods`` and ``datasets`` are
its subpackages. That keeps our ``datasets`` apart from the library of the same name.
"""

__version__ = "0.1.0"


class InputError(Exception):
    """The user asked for something that cannot be done: the command line prints the message and exits with 2.

    The message says what was wrong, what was expected and what to do, in one or two lines.
    """


def printable(text: str) -> str:
    """The text with control characters as spaces, line breaks kept: a terminal obeys what it is shown."""
    return "".join(char if char.isprintable() or char == "\n" else " " for char in text)
