"""Snakemake without its limit on jobs a second: ``python workflow/engine.py <options of snakemake>``.

The limit starts an endless chain of one-second timers for every job that ends, so its cost grows with the number of
jobs: a quarter of a core in a long run. It has no option that turns it off. On a cluster it stays: it protects the
scheduler there.
"""

import sys

from snakemake import cli


def main(arguments: list[str]) -> int:
    """Run from the terminal; returns the exit status."""
    parser, options = cli.parse_args(arguments)
    options.max_jobs_per_timespan = None
    return 0 if cli.args_to_api(options, parser) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
