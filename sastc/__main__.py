"""Terminal interface: ``python -m sastc train|list|show|compare|verify|explain``, with the notebooks' parameters."""

import argparse
import contextlib
import ctypes
import os
import sys

from sastc import methods, records
from sastc.config import EVERY, ConfigError, RunConfig, allowed_values, check_name
from sastc.methods import REGISTRY
from sastc.terminal import print_anywhere


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 1 where a run is damaged, or 2 for a mistake that is explained."""
    print_anywhere()
    parser = argparse.ArgumentParser(prog="python -m sastc", description=__doc__.splitlines()[0])
    parser.add_argument("--results", default="results", help="folder of the runs (default: %(default)s)")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    train = commands.add_parser("train", help="train a run and its teacher, or show it if it is recorded")
    train.add_argument("settings", nargs="*", metavar="key=value", help="fields of RunConfig, see explain")
    train.add_argument("--data", default="data", help="folder of the datasets (default: %(default)s)")
    train.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ... (default: a GPU where there is one)")
    train.add_argument("--force", action="store_true", help="run again even if a result is recorded")
    commands.add_parser("list", help="list recorded runs").add_argument("filter", nargs="*", help="parts of the name")
    commands.add_parser("show", help="show one run").add_argument("run", help="its folder, name or part of the name")
    compare = commands.add_parser("compare", help="show runs side by side")
    compare.add_argument("runs", nargs="+", metavar="run")
    explain = commands.add_parser("explain", help="explain the fields of a run's configuration, or a method")
    explain.add_argument("fields", nargs="*", metavar="field", help="or a method: its name, or file.py:Class")
    verify = commands.add_parser("verify", help="compare recorded runs with the SHA-256 sums that they carry")
    verify.add_argument("folder", nargs="?", help="folder of runs, or of one run (default: that of --results)")
    verify.add_argument("--seal", action="store_true", help="give sums to runs of earlier versions, which have none")
    options, left = parser.parse_known_args(arguments)
    if wrong := [word for word in left if options.command != "train" or word.startswith("-")]:
        parser.error(f"unrecognized arguments: {' '.join(wrong)}")
    if left:  # argparse takes the settings before an option alone
        options.settings += left
    try:
        status = globals()[f"_{options.command}"](options)
    except BrokenPipeError:  # not a mistake: see the end of this file
        raise
    except (ConfigError, records.RunError, ValueError, OSError) as error:
        process = f"process {os.environ['RANK']}: " if "RANK" in os.environ else ""
        print(f"{process}{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return 2
    except KeyboardInterrupt:
        goes_on = "with --force the same command starts again; what was recorded before is kept"
        if not getattr(options, "force", False):
            goes_on = "the same command goes on from the last finished epoch"
        print(f"interrupted: {goes_on}" if options.command == "train" else "interrupted", file=sys.stderr)
        return 130
    return status or 0


def _train(options: argparse.Namespace) -> None:
    config = RunConfig.from_arguments(options.settings)
    _keep_memory()
    from sastc.train import run  # here, so that a mistake in the settings shows before torch is loaded

    done = run(config, results=options.results, data=options.data, device=options.device, force=options.force)
    if os.environ.get("RANK", "0") == "0":
        _print_run(done)


def _keep_memory() -> None:
    """Have glibc keep freed memory, as workflow/launch.py does by environment variables.

    By default it returns tensors over 32 MB to the kernel at every free and requests them again, so that elementwise
    work on them is several times slower. Another C library is left alone.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        mallopt, (trim_threshold, mmap_max) = ctypes.CDLL(None).mallopt, (-1, -4)  # numbers of <malloc.h>
        mallopt(mmap_max, 0)  # no tensor gets a mapping of its own
        mallopt(trim_threshold, -1)  # and the heap never shrinks


def _list(options: argparse.Namespace) -> None:
    runs = [r for r in records.list_runs(options.results) if all(part in r.name for part in options.filter)]
    if not runs:
        print(f"no runs below {options.results}" + (" match" if options.filter else ""))
    for run in runs:
        try:
            without = "diverged" if run.ended else "unfinished"
            accuracy = f"{run.metrics['accuracy']:6.2f} %" if run.complete else without
        except (records.RunError, KeyError):
            accuracy = "damaged"
        print(f"{accuracy:>10}  {run.path}")


def _show(options: argparse.Namespace) -> None:
    _print_run(records.find_run(options.run, options.results))


def _compare(options: argparse.Namespace) -> None:
    runs = [records.find_run(name, options.results) for name in options.runs]
    configs = [run.config.to_dict() | {r: own.reference for r, own in run.config.networks.items()} for run in runs]
    names = list({name: None for config in configs for name in config})  # a method may have options that others lack
    rows = {name: [c.get(name, "-") for c in configs] for name in names}
    rows = {name: values for name, values in rows.items() if len(set(map(str, values))) > 1}
    metrics = [run.metrics if run.complete else {} for run in runs]
    for name in ("last_accuracy", "best_accuracy", "stm", "epochs", "parameters", "train_seconds_per_epoch",
                 "inference_seconds", "peak_memory_bytes"):  # fmt: skip
        if any(name in m for m in metrics):
            rows["epochs_done" if name == "epochs" else name] = [m.get(name, "-") for m in metrics]
    width = max(map(len, rows), default=0)
    for name, values in rows.items():
        print(f"{name:<{width}}", *(f"{_text(v):>16}" for v in values))


def _verify(options: argparse.Namespace) -> int:
    from sastc.verify import verify

    folder = options.folder or options.results
    without = [run for run in records.list_runs(folder) if run.complete and not run.has(records.SUMS)]
    found = verify(folder, sealing=options.seal)
    for wrong in found.values():
        print(*wrong, sep="\n")
    if sealed := [run for run in without if run.has(records.SUMS)]:
        print(f"{len(sealed)} runs have {records.SUMS} now: from their files as they are")
    elif without:
        print(f"python -m sastc verify {folder} --seal gives {records.SUMS} to runs of earlier versions as they are")
    print(f"{len(records.list_runs(folder))} runs, {len(found)} damaged")
    return int(bool(found))


def _explain(options: argparse.Namespace) -> None:
    given = [kind for name in options.fields if (kind := methods.find(name)) is not None]
    settings = [(field, field.metadata["applies"]) for field in RunConfig.fields().values()]
    settings += [
        (f, (kind.name,)) for kind in dict.fromkeys([*REGISTRY.values(), *given]) for f in kind.options.values()
    ]
    chosen = {name for kind in given for name in (*kind.fields, *kind.options)}
    for name in options.fields:
        if methods.find(name) is None:
            check_name(name, {field.name for field, _ in settings} - RunConfig.fields().keys())
            chosen.add(name)
    for field, applies in settings:
        if options.fields and field.name not in chosen:
            continue
        default = "from the presets" if field.default is None else repr(field.default)
        only = "" if set(applies) == set(EVERY) else f"; for {', '.join(applies)}"
        print(f"{field.name}: {field.metadata['doc']}\n    {allowed_values(field)}; default {default}{only}")


def _print_run(run: records.Run) -> None:
    print(run.path)
    print(f"  made by   {run.config.command}")
    if found := run.diverged:
        print(f"  diverged  {found['what']} is not finite in epoch {found['epoch']}")
        return
    if not run.complete:
        kept = any(run.path.glob("checkpoint*.pt"))
        where = "goes on from the last finished epoch" if kept else "starts it from the first epoch"
        print(f"  unfinished: the same command {where}")
        return
    metrics, provenance = run.metrics, run.provenance
    print(f"  accuracy  last {metrics['last_accuracy']:.2f} %, best {metrics['best_accuracy']:.2f} %"
          f" (epoch {metrics['best_epoch']} of {metrics['epochs']})")  # fmt: skip
    if "stm" in metrics:
        print(f"  STM score {metrics['stm']:.3f}")
    if "teacher" in provenance:
        print(f"  teacher   {provenance['teacher']['run']}, {provenance['teacher']['accuracy']:.2f} %")
    commit = (provenance["commit"] or "unknown")[:10] + (" with changes" if provenance["dirty"] else "")
    print(f"  commit    {commit}, torch {provenance['versions']['torch']}, {provenance['device']}")


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BrokenPipeError:  # piped into head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
