"""Measure speed and memory: ``python benchmarks/run.py``; prints a table and writes JSON. README.md tells more."""

import argparse
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# glibc gives tensors over 32 MB back to the kernel at every free; kept, elementwise work is several times faster.
ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": "17179869184",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
    "MALLOC_TOP_PAD_": "268435456",
}
CASES = (
    "lif",
    "call",
    "calibration",
    "kd_step",
    "sastc_step",
    "recording",
    "epoch",
    "inference",
    "imagenet",
    "scaling",
)


def main(arguments: list[str] | None = None) -> Path:
    """Measure what the command line asks for; returns the file written."""
    options = _options(arguments)
    import torch

    import sastc.fused
    from benchmarks import measure, peers, report, settings, training
    from benchmarks.neuron import call_cases
    from benchmarks.neuron import cases as lif_cases
    from sastc.records import provenance, write_json
    from sastc.terminal import print_anywhere

    print_anywhere()
    device = torch.device(options.device)
    torch.backends.cudnn.allow_tf32 = False  # fp32 is fp32, in convolutions as in the matrix product of the peak
    chosen = settings.tiny(device) if options.tiny else settings.default(device, options.repeats, options.full)
    chosen.peers = peers.installed()
    makers: dict[str, Callable[[settings.Settings], Iterator[dict[str, Any]]]] = {
        "lif": lif_cases,
        "call": call_cases,
        "calibration": training.calibration_cases,
        "kd_step": lambda s: training.step_cases(s, "kd"),
        "sastc_step": lambda s: training.step_cases(s, "sastc"),
        "recording": training.recording_cases,
        "epoch": training.epoch_cases,
        "inference": training.inference_cases,
        "imagenet": training.imagenet_cases,
        "scaling": training.scaling_cases,
    }
    if not options.tiny:
        sastc.fused.COMPILE_AFTER = 0  # as in any run that is long enough to be worth measuring
    command = shlex.join(["python", "benchmarks/run.py", *(sys.argv[1:] if arguments is None else arguments)])
    peak = {name: measure.matmul_peak(device, dtype, chosen.matmul) for name, dtype in settings.DTYPES.items()}
    made = provenance(command, device, torch.get_num_threads())
    record = {
        "provenance": made,
        "peers": chosen.peers,
        "allocator": {name: os.environ.get(name) for name in ALLOCATOR},
        "settings": vars(chosen),
        "peak_flops": peak,
        "copy_bandwidth": measure.copy_bandwidth(device, 2**20 if options.tiny else 2**27),
        "measured": {},
        "cases": [],
    }
    if options.only:
        report.keep(record, options.out, options.only)
    start = time.perf_counter()
    for case in options.only or CASES:
        torch.manual_seed(0)
        rows = []
        for row in makers[case](chosen):
            if "flops" in row:
                row["flops_per_second"] = row["flops"] / row["median"]
                row["peak_share"] = row["flops_per_second"] / peak[row["precision"]]
            rows.append(row)
        record["cases"] += rows
        record["measured"][case] = {name: made[name] for name in report.MADE}
        print(f"\n{case}\n{report.text_table(rows)}", flush=True)
        record["total_seconds"] = time.perf_counter() - start
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(options.out, record)  # after every case: what was measured is kept
    print(f"\nwritten to {options.out}, {record['total_seconds']:.0f} s")
    return options.out


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure speed and memory of the library.")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--only", nargs="+", choices=CASES, metavar="CASE", help=f"of {', '.join(CASES)}")
    parser.add_argument("--repeats", type=int, help="rounds of every comparison")
    parser.add_argument("--out", type=os.path.expanduser, help="default: results/benchmarks/<device>.json")
    parser.add_argument("--full", action="store_true", help="the paper's network widths on the CPU too")
    parser.add_argument("--tiny", action="store_true", help="see in seconds that everything runs; no measurement")
    options = parser.parse_args(arguments)
    if options.repeats is not None and options.repeats < 1:
        parser.error(f"--repeats={options.repeats}: must be at least 1")
    options.out = Path(options.out or Path(__file__).parents[1] / f"results/benchmarks/{options.device}.json")
    return options


def _keep_memory() -> None:
    """Start again with the allocator's settings, which count only from the start of a process."""
    if platform.libc_ver()[0] == "glibc" and not any(name in os.environ for name in ALLOCATOR):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | ALLOCATOR)


if __name__ == "__main__":
    _keep_memory()
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    main()
