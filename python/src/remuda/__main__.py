"""`python -m remuda` is the program `remuda`."""

from __future__ import annotations

import os
import sys

from remuda import find_program


def main() -> None:
    """Becomes the program: same process, same arguments."""
    program = find_program()
    os.execv(program, [program, *sys.argv[1:]])


if __name__ == "__main__":
    main()
