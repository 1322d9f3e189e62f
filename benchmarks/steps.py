"""Training steps against those of an earlier commit: ``python benchmarks/steps.py``.

Both checkouts train in processes of their own that take turns, so that a slow moment of the machine meets both. The
record names the processor: there is one file for each kind, ``results/benchmarks/steps/<kind>.json``. Rows that are
not measured again stay in it, each with its commit.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import threading
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BEFORE = "2390fd9"  # the commit before neurons in C++ and projectors without copies
METHODS = ("teacher", "baseline", "kd", "feature_kd", "sastc")
WHAT = ("student", "teacher", "method", "precision", "width")  # of a row: measured again, it replaces the older one
CONVOLUTIONS = ("conv", "aten::mm", "addmm", "bmm")  # and matrix products: work that no implementation is spared
LINE = (
    "{precision} width {width:g} {student} & {teacher} {method:10s} {seconds_before:.3f} s -> {seconds_now:.3f} s, "
    "{ratio:.2f}x, convolutions {convolution_share:.0%}, images/s {one_run:.0f} in one run, {side_by_side:.0f} side by "
    "side"
)
# instruction sets from the fastest arithmetic in bf16 to none
KINDS = (("amx_bf16", "amx"), ("avx512_bf16", "avx512_bf16"), ("avx512f", "avx512"), ("avx2", "avx2"))


class Worker:
    """A process that trains steps of a checkout."""

    def __init__(self, root: Path, threads: int):
        file = str(Path(__file__).with_name("steps_worker.py"))
        # each imports its own sastc; the allocator keeps freed memory, as in a run from the terminal
        keep = {"MALLOC_MMAP_THRESHOLD_": str(16 * 2**30), "MALLOC_TRIM_THRESHOLD_": str(16 * 2**30)}
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", file, str(root), str(threads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | keep, cwd=tempfile.gettempdir(),
        )  # fmt: skip

    def ask(self, **question: Any) -> Any:
        """Its answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        if not (line := self.process.stdout.readline()):
            raise RuntimeError(f"a step cannot be measured: the process of {self.process.args} has ended")
        return json.loads(line)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def earlier(commit: str, folder: Path) -> Path:
    """The files of a commit, below `folder`."""
    made = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=BytesIO(made)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def ratio(before: Path, fields: dict[str, Any], rounds: int, threads: int) -> dict[str, Any]:
    """Seconds of a step before and now, in turn, and how often faster: median, lowest and highest of the rounds."""
    with Worker(before, threads) as old, Worker(ROOT, threads) as new:
        both = {"before": old, "now": new}
        losses = set()
        for worker in both.values():
            worker.ask(fields=fields)
            losses.add(worker.ask(steps=3)["loss"])
        seconds: dict[str, list[float]] = {name: [] for name in both}
        for k in range(rounds):
            for name in list(both) if k % 2 == 0 else reversed(both):
                seconds[name].append(statistics.median(both[name].ask(steps=3)["seconds"]))
        shares, rates = new.ask(shares=True), new.ask(rate=True)
    ratios = [b / n for b, n in zip(*seconds.values(), strict=True)]
    share = sum(s for name, s in shares.items() if any(word in name for word in CONVOLUTIONS))
    now = statistics.median(seconds["now"])
    return {
        "seconds_before": statistics.median(seconds["before"]),
        "seconds_now": now,
        "ratio": statistics.median(ratios),
        "ratio_low": min(ratios),
        "ratio_high": max(ratios),
        "same_loss": len(losses) == 1,
        "convolution_share": share,
        "convolution_rate": rates["flop"] / (share * now),  # FLOP/s
        "peak_rate": rates["peak"],
        "shares": dict(sorted(shares.items(), key=lambda item: -item[1])[:12]),
    }


def images_a_second(fields: dict[str, Any], runs: int, threads: int, steps: int) -> float:
    """Training images a second of so many runs side by side, each with so many threads."""
    workers = [Worker(ROOT, threads) for _ in range(runs)]
    found: list[float] = [0.0] * runs

    def work(number: int) -> None:
        workers[number].ask(steps=2)
        seconds = workers[number].ask(steps=steps)["seconds"]
        found[number] = fields["batch_size"] / statistics.median(seconds)

    try:
        for worker in workers:
            worker.ask(fields=fields)
        threads_of_ours = [threading.Thread(target=work, args=(number,)) for number in range(runs)]
        for thread in threads_of_ours:
            thread.start()
        for thread in threads_of_ours:
            thread.join()
    finally:
        for worker in workers:
            worker.__exit__()
    return sum(found)


def processor() -> str:
    """Its kind: the fastest arithmetic it has, see `KINDS`."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return next((kind for flag, kind in KINDS if f" {flag}" in text), "other")


def cases(options: argparse.Namespace, before: Path) -> Iterator[dict[str, Any]]:
    """One row for each precision, width, pair and method."""
    cores = os.cpu_count() or 1
    for precision in options.precision:
        for width in options.width:
            for pair in options.pairs:
                student, teacher = pair.split("/")
                for method in options.methods:
                    what = dict(student=student, teacher=teacher, method=method, precision=precision, width=width)
                    fields = what | dict(dataset="cifar10", scale="slim", train_subset=0, learning_rate=1e-6)
                    fields |= dict(batch_size=options.batch_size, mlp_dim=options.batch_size)
                    if method == "teacher":
                        del fields["student"]
                    row = what | {"timesteps": 2} | ratio(before, fields, options.rounds, cores)
                    row["one_run"] = images_a_second(fields, 1, cores, 3 * options.rounds)
                    row["side_by_side"] = images_a_second(fields, cores, 1, 2 * options.rounds)
                    yield row


def main(arguments: list[str] | None = None) -> Path:
    """Measure and write; returns the file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--against", default=BEFORE, metavar="COMMIT", help="default: %(default)s")
    parser.add_argument("--precision", nargs="+", choices=("bf16", "fp32"), default=["bf16", "fp32"])
    parser.add_argument("--width", nargs="+", type=float, default=[0.25, 0.5])
    parser.add_argument("--pairs", nargs="+", default=["vgg11/resnet19", "resnet18/wrn28_4"])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=lambda text: Path(os.path.expanduser(text)), help="file to write")
    options = parser.parse_args(arguments)
    out = options.out or ROOT / f"results/benchmarks/steps/{processor()}.json"
    sys.path.insert(0, str(ROOT))
    import torch

    from benchmarks.report import hardware
    from sastc.records import provenance, write_json

    record = {
        "provenance": provenance("python benchmarks/steps.py", torch.device("cpu"), torch.get_num_threads()),
        "processor": processor(),
        "against": options.against,
        "cases": [],
    }
    older = json.loads(out.read_text()) if out.exists() else None
    if older and (older["against"], hardware(older)) == (options.against, hardware(record)):
        record["cases"] = [{"commit": older["provenance"]["commit"]} | row for row in older["cases"]]
    with tempfile.TemporaryDirectory() as folder:
        for row in cases(options, earlier(options.against, Path(folder))):
            others = [kept for kept in record["cases"] if any(kept[name] != row[name] for name in WHAT)]
            record["cases"] = [*others, row | {"commit": record["provenance"]["commit"]}]
            out.parent.mkdir(parents=True, exist_ok=True)
            write_json(out, record)  # after every case: what was measured is kept
            print(LINE.format(**row), flush=True)
    return out


if __name__ == "__main__":
    main()
