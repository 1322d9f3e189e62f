"""Output on any terminal."""

import sys


def print_anywhere() -> None:
    r"""From now on print a character that the terminal does not have as ``\u03bb`` instead of failing at it."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a captured stream may not
            stream.reconfigure(errors="backslashreplace")
