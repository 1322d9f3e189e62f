"""One process of ``benchmarks/steps.py``: trains steps of a checkout that is named first on its command line.

It reads a JSON line, does what it says, and answers with one: so several checkouts take turns on one machine.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

SIZE, CLASSES = 32, 10


def made(fields: dict) -> tuple:
    """The training of a config on random images, and a batch; works on this and on earlier versions."""
    import torch

    from sastc import train
    from sastc.config import RunConfig
    from sastc.data import Dataset, Split

    config = RunConfig(**fields)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (config.batch_size, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator)
    split = Split(images, torch.arange(config.batch_size) % CLASSES)
    names = tuple(map(str, range(CLASSES)))
    data = Dataset("cifar10", "random", names, split, split, (0.5,) * 3, (0.25,) * 3, 4, True, {})
    if hasattr(train, "Step"):
        training = train.Step(config, *train.networks(config, data))
    else:
        training = train._Training(config, Path(tempfile.gettempdir()), data, torch.device("cpu"), False)
    training.model.train()
    training.calibration.train()
    x = torch.randn(config.batch_size, 3, SIZE, SIZE, generator=generator).to(memory_format=training.layout)
    return training, x, split.labels


def step(training, x, y) -> float:
    """One update, as in a run; the loss."""
    training.optimizer.zero_grad(set_to_none=True)
    parts, _ = training.losses(x, y) if hasattr(training, "losses") else training._losses(x, y, False)
    parts["loss"].backward()
    training.optimizer.step()
    return parts["loss"].item()


def rates(training: tuple) -> dict[str, float]:
    """Operations of a step's convolutions and matrix products, and how many a second a large product does here.

    `flop` of both passes; `peak` in FLOP/s, in the step's precision.
    """
    import torch

    from benchmarks import measure

    dtype = torch.bfloat16 if training[0].config.precision == "bf16" else torch.float32
    peak = measure.matmul_peak(torch.device("cpu"), dtype, 2048, repeats=10)
    return {"flop": measure.count_flops(lambda: step(*training)), "peak": peak}


def main() -> None:
    """Answer until there is nothing more to read."""
    sys.path.insert(0, sys.argv[1])
    import torch

    torch.set_num_threads(int(sys.argv[2]))
    training = None
    for line in sys.stdin:
        asked = json.loads(line)
        if "fields" in asked:
            training = made(asked["fields"])
            answer = "made"
        elif "steps" in asked:
            seconds = []
            for _ in range(asked["steps"]):
                start = time.perf_counter()
                loss = step(*training)
                seconds.append(time.perf_counter() - start)
            answer = {"seconds": seconds, "loss": loss}
        elif "rate" in asked:
            answer = rates(training)
        else:  # the shares of a step's time by operation
            from torch.profiler import ProfilerActivity, profile

            with profile(activities=[ProfilerActivity.CPU]) as record:
                step(*training)
            times = {e.key: e.self_cpu_time_total for e in record.key_averages()}
            whole = sum(times.values())
            answer = {name: t / whole for name, t in times.items() if t > 0.005 * whole}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
