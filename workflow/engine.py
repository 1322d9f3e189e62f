"""Snakemake without its limit on jobs a second: ``python workflow/engine.py <options of snakemake>``.

The limit starts an endless chain of one-second timers for every job that ends, so its cost grows with the number of
jobs: a quarter of a core in a long run. It has no option that turns it off. On a cluster it stays: it protects the
scheduler there.

Its locks are found in a checkout with braces in its path, too, which Snakemake takes for wildcards.
"""

import os
import re
import sys
from collections.abc import Iterator

from snakemake import cli, io
from snakemake.persistence import file as persistence


def files_like(pattern: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Files whose name, without its folder, is like a pattern with wildcards, and what these stand for."""
    folder, name = os.path.split(pattern)
    like = re.compile(io.regex_from_filepattern(name))
    for file in sorted(os.listdir(folder)):
        if found := like.match(file):
            yield os.path.join(folder, file), found.groupdict()


def main(arguments: list[str]) -> int:
    """Run from the terminal; returns the exit status."""
    persistence.listfiles = files_like  # which looks for locks alone
    parser, options = cli.parse_args(arguments)
    options.max_jobs_per_timespan = None
    return 0 if cli.args_to_api(options, parser) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
