"""Run the workflow: ``python workflow/launch.py [--scale quick] [key=value ...]``.

Snakemake does the work. This starts it with the right settings, clears what a killed run has left behind, shows the
progress and the time left, and says at the end what failed and how to run just that again.
"""

import argparse
import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
import psutil
from filelock import FileLock, Timeout
from tqdm import tqdm

from companion.notebook import FOLDERS, from_folder
from sastc.config import CODE, SCALES, ConfigError, parse_arguments
from sastc.experiments import check_choice
from sastc.records import Run, run_path
from sastc.terminal import print_anywhere

sys.path.insert(0, str(Path(__file__).parent))
from forkserver import GPUS, SERVER
from plan import BOOK_PAGE_SECONDS, Job, Pace, book_share, make_plan, progress, training_threads, write_digests

ROOT = Path(__file__).parents[1]
SITE = "results/site/_build/html/index.html"
MARK = "SASTC_WORKFLOW"  # in the environment of every process of this checkout's workflow
SLURM_JOB = "SLURM_JOB_ID"  # set by Slurm in the processes of a job
CANCEL_SECONDS = 90  # for Snakemake to cancel its jobs: its Slurm plugin gives scancel 60


def stop_leftovers() -> int:
    """Stop processes that a killed workflow of this checkout has left: papermill, kernels; returns how many.

    A job of a cluster inherits the mark and may run on this machine: the cluster keeps it, and ends it.
    """
    mine = {os.getpid(), *(p.pid for p in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        try:
            its = {} if process.pid in mine else process.environ()
            if its.get(MARK) == str(ROOT) and its.get(SLURM_JOB) == os.environ.get(SLURM_JOB):
                process.kill()
                found.append(process)
        except psutil.Error:  # ended meanwhile, or another user's
            continue
    psutil.wait_procs(found, timeout=10)
    return len(found)


def environment() -> dict[str, str]:
    """Environment of the jobs."""
    paths = [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    keep = str(16 * 2**30)
    return os.environ | {
        "PATH": os.pathsep.join(paths),
        MARK: str(ROOT),
        "OMP_NUM_THREADS": "1",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",  # as in every kernel
        # glibc gives large freed tensors back to the kernel each time and fetches them anew: several times slower.
        "MALLOC_MMAP_THRESHOLD_": keep,
        "MALLOC_TRIM_THRESHOLD_": keep,
    }


def snakemake(options: argparse.Namespace, *more: str) -> list[str]:
    """Snakemake's command line; targets come first, since options after it take any number of words."""
    settings = {n: getattr(options, n) for n in ("scale", "changes", "only", "results", "data", "notebooks", "gpus")}
    file = ROOT / "results" / ".workflow" / "settings.json"
    file.write_text(json.dumps(settings | {"book": options.book, "threads": options.threads}))
    where = ["--cores", str(options.cores), "--resources", f"gpu={options.gpus}"]
    engine = [str(ROOT / "workflow" / "engine.py")]
    if options.profile:  # the profile says how many jobs run at a time, and where
        own = ROOT / "workflow" / "profiles" / options.profile
        where = ["--profile", str(own if own.is_dir() else options.profile)]
        engine = ["-m", "snakemake"]
    return [
        sys.executable, *engine, *more, "--snakefile", "workflow/Snakefile", "--directory", str(ROOT),
        "--configfile", str(file), *where, "--keep-going", "--rerun-incomplete",
        "--rerun-triggers", "mtime", "input",
    ]  # fmt: skip


@contextlib.contextmanager
def forkserver() -> Iterator[None]:
    """The process that notebooks are forked from; without it they work too, slower."""
    with tempfile.TemporaryDirectory(prefix="sastc-") as folder:
        os.environ[SERVER] = str(Path(folder, "socket"))  # for the jobs; a path in here could be too long for a socket
        command = [sys.executable, str(ROOT / "workflow" / "forkserver.py"), "--serve"]
        server = subprocess.Popen(command, env=environment(), start_new_session=True, stdout=subprocess.DEVNULL)
        try:
            while server.poll() is None and not Path(os.environ[SERVER]).exists():
                time.sleep(0.1)
            yield
        finally:
            server.kill()
            server.wait()


def forget_lost_runs(jobs: dict[str, Job], options: argparse.Namespace) -> None:
    """Delete executed notebooks whose run's result is gone, so that they are made again."""
    for job in jobs.values():
        if job.config is not None and not Run(run_path(job.config, options.results)).ended:
            (ROOT / options.notebooks / f"{job.name}.ipynb").unlink(missing_ok=True)


def watch(process: subprocess.Popen, jobs: dict[str, Job], options: argparse.Namespace, log: Path) -> None:
    """Show progress until the process ends."""
    folders = ROOT / options.notebooks, ROOT / options.results
    sources = sum(path.suffix in (".md", ".ipynb") for path in (ROOT / "book").rglob("*"))
    pages = sources + sum(job.config is None for job in jobs.values())
    book = options.cores * BOOK_PAGE_SECONDS * pages if options.book and not options.target else 0.0
    done, total = progress(jobs, *folders)
    if book and done == total and (ROOT / SITE).exists():
        book = 0.0  # most likely up to date
    pace, built = Pace(done, total + book), 0.0
    layout = "{desc} {percentage:3.0f}% |{bar}| {elapsed} spent{postfix}"
    with tqdm(total=pace.total, initial=done, desc="notebooks", bar_format=layout, mininterval=1) as bar:
        while process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=3)  # to look costs a moment of a core
            ready = sum((folders[0] / f"{job.name}.ipynb").exists() for job in jobs.values())
            if building := bool(book) and ready == len(jobs):
                built = max(built, book_share(log.read_text(errors="replace")))
            pace.update(progress(jobs, *folders)[0] + built * book, time.monotonic())
            bar.n = pace.done
            left = pace.seconds_left(time.monotonic())
            left = tqdm.format_interval(left) if left < float("inf") else "?"
            bar.set_postfix_str(f"{left} left,  {ready} of {len(jobs)} ready{'; building the book' * building}")


def stop(process: subprocess.Popen, options: argparse.Namespace, log: Path) -> None:
    """End Snakemake and what it has started here, take its lock away, and name the jobs that a cluster still has."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C would leave the rest behind
    if options.profile:  # Snakemake cancels the jobs that it has sent; at SIGTERM it would wait until they end
        print("\nstopping: cancelling the jobs of the cluster", file=sys.stderr, flush=True)
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(CANCEL_SECONDS)
    process.kill()
    process.wait()
    stop_leftovers()
    for lock in (ROOT / ".snakemake" / "locks").glob("*"):  # ours is held: no other Snakemake runs here
        lock.unlink(missing_ok=True)
    if message := jobs_left(log):
        print(message, file=sys.stderr)


def jobs_left(log: Path) -> str:
    """What Slurm still has of the jobs whose sending `log` tells of, and how to end them; "" if nothing was sent."""
    text = log.read_text(errors="replace")
    sent = re.findall(r"SLURM jobid '?(\d+)", text)
    if not sent:
        return ""
    (name,) = set(re.findall(r"SLURM run ID: (\S+)", text))  # which all jobs of a launch are named
    try:
        command = ["squeue", "--noheader", f"--name={name}", "--format=%A %T %k"]  # id, state, comment: the rule
        answer = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError) as error:
        why = (getattr(error, "stderr", None) or str(error)).strip()
        return (
            f"Slurm does not say which of its jobs {', '.join(sent)} still run: {why}\n"
            f"  see them: squeue --name={name}\n  end them: scancel --name={name}"
        )
    lines = [line.split() for line in answer.splitlines()]
    left = {job: f"  {job} {state} {rule}" for job, state, rule in lines if state != "COMPLETING"}
    if not left:
        return "Slurm has no jobs left of this launch"
    return "\n".join(["Slurm still has these jobs:", *left.values(), f"  end them: scancel {' '.join(left)}"])


def report_failures(jobs: dict[str, Job], options: argparse.Namespace, started: float, log: Path) -> None:
    """Say what failed and how to run just that again."""
    failed = [p for p in sorted((ROOT / "results/notebooks/failed").glob("*.ipynb")) if p.stat().st_mtime >= started]
    by_file = {Path(job.name).name: job for job in jobs.values()}
    for path in failed:
        cells = nbformat.read(path, as_version=4).cells
        errors = [o for c in cells for o in c.get("outputs", []) if o.output_type == "error"]
        what = f"{errors[-1].ename}: {errors[-1].evalue}" if errors else "stopped"
        job = by_file.get(path.stem)
        again = rerun_command(options, job) if job else "make book"
        print(f"\nfailed: {path.relative_to(ROOT)}\n  {what}\n  run just this again: {again}")
    _, building, book = log.read_text(errors="replace").partition("Running Jupyter-Book")
    if building:  # warnings are errors
        wrong = [line for line in book.splitlines() if "WARNING:" in line or "ERROR:" in line]
        print("\n".join(["\nthe book was not built:", *(wrong or book.splitlines()[-25:])]))
    elif not failed:
        print("\n".join(log.read_text(errors="replace").splitlines()[-25:]))
    print(f"\n{len(failed)} notebooks failed; the others are kept. Full log: {log.relative_to(ROOT)}")


def dry_run(options: argparse.Namespace, targets: list[str]) -> int:
    """Say which notebooks would be made, and how many; all that the engine says with ``--verbose``."""
    command = snakemake(options, *targets, "--dry-run")
    if options.verbose:
        return subprocess.call(command, env=environment())
    told = subprocess.run(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    names = re.findall(rf"^ +output: {re.escape(options.notebooks)}/(.+)\.ipynb$", told.stdout, re.M)
    print("\n".join([*names, told.stdout[max(told.stdout.rfind("Job stats:"), 0) :]]))
    return told.returncode


def rerun_command(options: argparse.Namespace, job: Job) -> str:
    """Command that makes just one notebook of this launch again."""
    changes = [f"{n}={json.dumps(v) if not isinstance(v, str) else v}" for n, v in options.changes.items()]
    words = ["--scale", options.scale, *changes, "--target", job.name]
    return f"make book ARGS={shlex.quote(shlex.join(words).replace('$', '$$'))}"


def count_gpus() -> int:
    """GPUs that torch sees; it is asked only where the system shows a driver, since it takes seconds to import."""
    if not any(Path("/dev", name).exists() for name in ("nvidiactl", "kfd", "dxg")):  # NVIDIA, AMD, Windows' Linux
        return 0
    import torch

    return torch.cuda.device_count()


def _from_here(setting: str) -> str:
    """A setting; a file of one's own code in it is a whole path unless it lies in the checkout, where programs run."""
    name, _, value = setting.partition("=")
    file, colon, kind = value.rpartition(".py:")
    if name not in CODE or not colon:
        return setting
    path = Path(os.path.expanduser(f"{file}.py")).resolve()
    return f"{name}={path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}:{kind}"


def main() -> int:
    """Run from the terminal; returns the exit status."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C does, stop what was started
    print_anywhere()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("settings", nargs="*", metavar="key=value", help="change settings of all runs")
    parser.add_argument("--scale", choices=SCALES, default="quick", help="default: %(default)s")
    parser.add_argument("--only", nargs="+", default=[], metavar="EXPERIMENT", help="names below experiments/")
    parser.add_argument("--target", nargs="+", default=[], metavar="NOTEBOOK", help="make just these notebooks")
    parser.add_argument("--cores", type=int, default=os.cpu_count(), help="default: all (%(default)s)")
    parser.add_argument("--gpus", type=int, default=None, help="default: all that torch sees")
    parser.add_argument(
        "--profile", help="run the jobs elsewhere: a Snakemake profile below workflow/profiles, or its path"
    )
    parser.add_argument("--results", type=os.path.expanduser, help="folder of the runs (default: the checkout's)")
    parser.add_argument("--data", type=os.path.expanduser, help="folder of the datasets (default: the checkout's)")
    parser.add_argument("--no-book", dest="book", action="store_false", help="do not build the book")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done")
    parser.add_argument("--verbose", action="store_true", help="with --dry-run, also say what each job asks for")
    options = parser.parse_intermixed_args()
    for option in ("only", "target"):  # which take the settings that follow them, too
        words = getattr(options, option)
        options.settings += [word for word in words if "=" in word]
        setattr(options, option, names := [word for word in words if "=" not in word])
        if words and not names:
            parser.error(f"argument --{option}: expected a name before {words[0]}")
    if options.cores < 1:
        parser.error(f"argument --cores: {options.cores}: must be at least 1")
    if options.gpus is not None and options.gpus < 0:
        parser.error(f"argument --gpus: {options.gpus}: must be at least 0")
    if options.profile and set("{}") & set(str(ROOT)):  # workflow/engine.py, which can do this, is not used there
        parser.error(f"argument --profile: a cluster takes no checkout with braces in its path, {ROOT}: rename it")
    options.notebooks = "results/notebooks"
    options.settings = [_from_here(setting) for setting in options.settings]
    whole = (options.scale == "quick" and not options.only) or (ROOT / SITE).exists()
    options.book = options.book and whole  # its contents list all quick pages: without them there is no book to build
    vars(options).update(from_folder(os.getcwd(), vars(options)))
    for name in FOLDERS:
        setattr(options, name, getattr(options, name) or name)
    os.chdir(ROOT)
    state = ROOT / "results" / ".workflow"
    state.mkdir(parents=True, exist_ok=True)
    lock = FileLock(state / "launch.lock")
    try:
        options.changes = {
            n: list(v) if isinstance(v, tuple) else v for n, v in parse_arguments(options.settings).items()
        }
        jobs = make_plan(options.scale, options.changes, tuple(options.only), options.results, options.data)
        names = [job.name for job in jobs.values()]
        for name in options.target:
            check_choice("target", name, names, f"they are named as below {options.notebooks}")
        lock.acquire(timeout=0)
    except ConfigError as error:
        print(f"ConfigError: {error}", file=sys.stderr)
        return 2
    except Timeout:
        print("another workflow runs in this checkout: wait for it, or stop it", file=sys.stderr)
        return 2
    if options.gpus is None and options.profile:
        options.gpus = 1  # a training asks for a GPU, wherever it will run
    else:
        count = count_gpus()
        options.gpus = count if options.gpus is None else options.gpus
        if count > 1:  # where there is one, torch takes it by itself
            os.environ[GPUS] = ",".join(f"cuda:{slot % count}" for slot in range(options.gpus))
    if count := stop_leftovers():
        print(f"stopped {count} processes that an interrupted run had left")
    write_digests(jobs)
    targets = [f"{options.notebooks}/{name}.ipynb" for name in options.target]
    options.threads = {}
    if not options.profile and not options.gpus and (options.verbose or not options.dry_run):
        options.threads = training_threads(jobs, options.cores, psutil.virtual_memory().total)
        for notebook, count in options.threads.items():
            if count > 1:
                print(f"{options.cores // count} of the trainings ({notebook}) at a time, with {count} threads each")
    if options.dry_run:
        return dry_run(options, targets)
    quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if any((ROOT / ".snakemake" / "locks").glob("*")):  # a killed Snakemake leaves its lock; ours says it is dead
        subprocess.run(snakemake(options, "--unlock"), env=environment(), **quiet)
    forget_lost_runs(jobs, options)
    chosen = {name: job for name, job in jobs.items() if not options.target or job.name in options.target}
    started, log = time.time(), state / "snakemake.log"
    with contextlib.nullcontext() if options.profile else forkserver(), open(log, "w") as output:
        process = subprocess.Popen(
            snakemake(options, *targets), env=environment(), stdout=output, stderr=output, start_new_session=True
        )
        try:
            watch(process, chosen, options, log)
        except KeyboardInterrupt:
            stop(process, options, log)
            print("\ninterrupted: the same command goes on from here", file=sys.stderr)
            return 130
    if process.returncode:
        report_failures(jobs, options, started, log)
        return 1
    if options.book and not options.target:
        print(f"The book is ready: open {SITE}, or type `make serve`.")
    elif pages := [job.name for job in chosen.values() if job.config is None]:
        print(f"Ready, below {options.notebooks}/: " + ", ".join(f"{name}.ipynb" for name in pages))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:  # before the first notebook
        sys.exit(130)
