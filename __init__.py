"""XShot Bench: a benchmark harness for few-shot cross-modal retrieval.

The folder of this file is the package ``xshot_bench``; ``benchmarks``, ``methods`` and ``datasets`` are
its subpackages. That keeps our ``datasets`` apart from the library of the same name.
"""

__version__ = "0.1.0"


class InputError(Exception):
    """The user asked for something that cannot be done: the command line prints the message and exits with 2.

    The message says what was wrong, what was expected and what to do, in one or two lines.
    """
