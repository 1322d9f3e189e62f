"""Cases of training: calibration, steps, epochs, recording, inference, and how the cost grows.

The library's steps are those of :func:`sastc.run`: its own trainer, fed with random images of CIFAR's shape.
"""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks import measure
from benchmarks.plain import PlainCalibration, PlainLIF, PlainStep, loss
from benchmarks.settings import DTYPES, PAIRS, Settings
from sastc import build
from sastc.calibration import SelfAttentiveCalibration
from sastc.config import RunConfig
from sastc.data import Dataset, Split, epoch_batches
from sastc.data.lazy import Files, LazyImages
from sastc.models.layers import PerStep
from sastc.neurons import LIF
from sastc.stm import MeanMismatch
from sastc.train import Step, Trainer

Row = dict[str, Any]


def synthetic(images: int, size: int = 32, classes: int = 10) -> Dataset:
    """Random images and labels, with CIFAR-10's channels and, unless told, classes."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (images, 3, size, size), dtype=torch.uint8, generator=generator)
    split = Split(pixels, torch.arange(images) % classes)
    names = tuple(map(str, range(classes)))
    return Dataset("cifar10", "random", names, split, split, (0.5,) * 3, (0.25,) * 3, 4, True, {})


def training(settings: Settings, *, images: int | None = None, digits: bool = False, **fields: Any) -> Trainer:
    """The object that :func:`sastc.run` trains with, on random images or on the digits; the teacher is untrained."""
    size = dict(batch_size=settings.batch_size, width=settings.width, image_size=settings.image_size, train_subset=0)
    if digits:
        config = RunConfig(**fields)  # the quick scale as it is
    else:  # a step costs the same at any learning rate; a tiny one keeps random networks finite
        config = RunConfig(**dict(dataset="cifar10", learning_rate=1e-6) | size | fields)
    classes = 1000 if config.dataset == "imagenet" else 10
    random = None if digits else synthetic(images or config.batch_size, config.image_size, classes)
    return Trainer(config, Path("unused"), random or build.dataset(config), settings.device, False)


def first_batch(made: Trainer) -> tuple[Tensor, Tensor]:
    """A batch as training sees it."""
    x, y, _ = next(iter(made.train_batches(0)))
    return x, y


def library_step(made: Step, x: Tensor, y: Tensor) -> Callable[[], Tensor]:
    """Forward, backward and update, as in a run."""
    made.begin(0, compare=False)

    def step() -> Tensor:
        return made.update(x, y)["loss"]

    return step


def plain_step(made: Trainer) -> PlainStep:
    """The plain counterpart, with the weights that `made` starts from."""
    config = made.config
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        student = _plain(build.build_model(config, made.dataset, "student")).to(made.device)
        teacher = build.build_model(config, made.dataset, "teacher").to(made.device).eval().requires_grad_(False)
    calibration = None
    if isinstance(made.step.calibration, SelfAttentiveCalibration):
        calibration = PlainCalibration(student.feature_shapes(), teacher.feature_shapes(), config.mlp_dim)
        calibration.to(made.device).copy_from(made.step.calibration)
    rates = dict(lr=config.learning_rate, momentum=config.momentum, weight_decay=config.weight_decay)
    return PlainStep(student, teacher, calibration, timesteps=config.timesteps, beta=config.beta or 0, **rates)


def _plain(model: nn.Module) -> nn.Module:
    """Put plain neurons in the place of the library's."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, LIF):
                setattr(module, name, PlainLIF(child.decay, child.threshold, child.gamma))
    return model


def check(made: Step, plain: PlainStep, x: Tensor, y: Tensor) -> dict[str, float]:
    """Compare a step layer by layer, each plain layer fed with what the library's layer was fed.

    End to end the two cannot be compared: a rounding error flips a spike, and the flip grows from layer to layer.
    Spikes are compared exactly, all else by relative error, which is returned by kind; bf16 has larger bounds.
    """
    bound = 1e-4 if made.config.precision == "fp32" else 3e-2
    calls: list[tuple[str, Tensor, Tensor]] = []
    watched = [(n, m) for n, m in made.model.named_modules() if isinstance(m, LIF | PerStep)]
    handles = [
        module.register_forward_hook(lambda _, given, out, name=name: calls.append((name, given[0], out)))
        for name, module in watched
    ]
    outputs: list[tuple] = []
    handles.append(made.trained.register_forward_hook(lambda _, given, out: outputs.append(out)))
    made.begin(0)
    with torch.no_grad():
        parts, _ = made.losses(x, y)
        with made.autocast():
            targets, soft = made.teacher.features(x)
    for handle in handles:
        handle.remove()
    ((features, logits, _, calibrated),) = outputs
    errors = {"layers": 0.0}
    networks = dict(plain.student.train().named_modules())
    with torch.no_grad():
        for name, given, found in calls:
            if isinstance(networks[name], PlainLIF):
                if not torch.equal(networks[name](given), found):
                    raise AssertionError(f"{name}: spikes differ for the same currents")
            else:
                errors["layers"] = max(errors["layers"], measure.close(found, networks[name](given.float()), bound))
        wanted, _ = plain.teacher.features(x.float())
        errors["teacher"] = max(measure.close(*pair, bound) for pair in zip(targets, wanted, strict=True))
        attention = distances = None
        if plain.calibration:
            attention, distances = calibrated[:2]
            expected = plain.calibration([f.float() for f in features], [f.float() for f in targets])
            errors["attention"] = measure.close(attention, expected[0], 1e-4)
            errors["distances"] = measure.close(distances, expected[1], bound)
        value = loss(logits.float(), soft.float(), y, attention, distances, beta=plain.beta)
        errors["loss"] = measure.close(parts["loss"], value, 1e-4)
    return errors


def step_cases(settings: Settings, method: str) -> Iterator[Row]:
    """`kd_step` and `sastc_step`: forward, backward and update of one batch."""
    for student, teacher in settings.pairs:
        for timesteps in settings.timesteps:
            fields = dict(student=student, teacher=teacher, method=method, timesteps=timesteps)
            yield from _steps(settings, f"{method}_step", settings.modes, **fields)
        if settings.wide:
            fields = dict(student=student, teacher=teacher, method=method, timesteps=2) | settings.wide
            yield from _steps(settings, f"{method}_step", settings.modes[-2:], **fields)


def _steps(settings: Settings, case: str, modes: tuple[tuple[str, str], ...], **fields: Any) -> Iterator[Row]:
    """Interleave the plain step with the library's in every mode."""
    made, batches, runs, errors, plain = {}, {}, {}, {}, None
    for mode in modes:
        made[mode] = training(settings, **fields, precision=mode[0], memory_format=mode[1])
        batches[mode] = first_batch(made[mode])
        reference = plain_step(made[mode])
        errors[mode] = check(made[mode].step, reference, *batches[mode])
        if plain is None:
            x, y = batches[mode]
            plain = reference, x.float().contiguous(), y
        runs[mode] = library_step(made[mode].step, *batches[mode])
    step, *batch = plain
    config = made[modes[0]].config
    common = dict(case=case, batch_size=config.batch_size, width=config.width) | fields
    runs = {"plain": lambda: step(*batch)} | runs
    seconds = measure.interleave(runs, settings.repeats, settings.device)
    flops = {name: measure.count_flops(runs[name]) for name in ("plain", modes[0])}
    for name, values in seconds.items():
        if name == "plain":
            row = dict(implementation="plain", precision="fp32", layout="contiguous")
            row |= {"convolution_share": measure.convolution_share(runs[name])} if settings.wide else {}
            kept = measure.kept_bytes(lambda: step.losses(*batch), [*step.parameters, *step.teacher.parameters()])
        else:
            row = dict(implementation="library", precision=name[0], layout=name[1], error=errors[name])
            own = made[name].step
            known = [p for part in (own.model, own.calibration, own.teacher) for p in part.parameters()]
            kept = measure.kept_bytes(lambda own=own, n=name: own.losses(*batches[n])[0]["loss"], known)
        row |= measure.summary(values, seconds["plain"])
        row |= {"kept_bytes": kept, "flops": flops.get(name, flops[modes[0]])}
        row["images_per_second"] = config.batch_size / row["median"]
        yield common | row | {"peak_bytes": measure.peak_bytes(runs[name], settings.device)}


def calibration_cases(settings: Settings) -> Iterator[Row]:
    """`calibration`: attention and distances of given features, forward and backward."""
    for student, teacher in settings.pairs:
        for timesteps in settings.timesteps:
            fields = dict(student=student, teacher=teacher, method="sastc", timesteps=timesteps)
            made = training(settings, **fields)
            yield from _calibration(settings, "calibration", made.step, len(made.step.model.feature_shapes()), fields)


def _calibration(settings: Settings, case: str, made: Step, layers: int, fields: Row) -> Iterator[Row]:
    """Interleave the plain loops with the library, on spikes (20 % of all) and non-negative teacher features."""
    device, config, generator = settings.device, made.config, torch.Generator().manual_seed(0)
    shapes, targets = made.model.feature_shapes()[:layers], made.teacher.feature_shapes()
    library = SelfAttentiveCalibration(shapes, targets, config.mlp_dim).to(device)
    plain = PlainCalibration(shapes, targets, config.mlp_dim).to(device).copy_from(library)
    steps, batch = config.timesteps, config.batch_size
    spikes = [(torch.rand(steps, batch, *s, generator=generator) < 0.2).float().to(device) for s in shapes]
    relus = [torch.randn(batch, *a, generator=generator).relu().to(device) for a in targets]

    def run(module: nn.Module, precision: str, layout: str) -> Callable[[], tuple]:
        channels_last = layout == "channels_last"
        order = torch.channels_last if channels_last else torch.contiguous_format
        dtype = DTYPES[precision]
        module.to(memory_format=order)
        student = [f.to(dtype).flatten(0, 1).contiguous(memory_format=order).unflatten(0, f.shape[:2]) for f in spikes]
        teacher = [f.to(dtype).contiguous(memory_format=order) for f in relus]

        def go() -> tuple:
            leaves = [f.detach().requires_grad_() for f in student]
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                attention, distances = module(leaves, teacher)[:2]
            (attention * distances).sum().backward()
            return attention, distances, *(leaf.grad for leaf in leaves)

        return go

    expected = run(plain, "fp32", "contiguous")
    runs = {"plain": expected}
    for mode in settings.modes:
        runs[mode] = run(SelfAttentiveCalibration(shapes, targets, config.mlp_dim).to(device), *mode)
    found = zip(run(library, "fp32", "contiguous")(), expected(), strict=True)
    error = max(measure.close(*pair, 1e-3) for pair in found)
    seconds = measure.interleave(runs, settings.repeats, device)
    for name, values in seconds.items():
        mode = ("fp32", "contiguous") if name == "plain" else name
        row = dict(case=case, implementation="plain" if name == "plain" else "library", precision=mode[0])
        row |= dict(layout=mode[1], student_layers=layers, teacher_layers=len(targets), error={"all": error})
        row |= dict(batch_size=batch, width=config.width) | fields | measure.summary(values, seconds["plain"])
        row |= {"flops": measure.count_flops(runs[name]), "peak_bytes": measure.peak_bytes(runs[name], device)}
        yield row


def recording_cases(settings: Settings) -> Iterator[Row]:
    """`recording`: what the measures cost, beside the steps of an epoch (10,000 images, or the paper's 50,000)."""
    images = 50_000 if settings.width >= 1 else 10_000
    for student, teacher in settings.pairs:
        precision, layout = settings.modes[-1]
        made = training(
            settings, images=2 * settings.batch_size, student=student, teacher=teacher, method="sastc",
            precision=precision, memory_format=layout,
        )  # fmt: skip
        x, y = first_batch(made)

        def measured(own=made.step, x=x, y=y) -> None:
            own.update(x, y, mismatch=MeanMismatch())

        def probe(made=made, own=made.step) -> None:
            made.probe.epoch(own.model.eval(), own.teacher, own.calibration)
            own.model.train()
            own.calibration.train()

        def gradients(own=made.step, x=x, y=y) -> None:
            own.compare(own.losses(x, y)[0])

        runs = {"step": library_step(made.step, x, y), "step with mismatch": measured}
        runs |= {"attention": probe, "gradients of both terms": gradients}
        seconds = measure.interleave(runs, settings.repeats, settings.device)
        steps, step = images // settings.batch_size, measure.summary(seconds["step"])["median"]
        for name, values in seconds.items():
            row = dict(case="recording", implementation=name, student=student, teacher=teacher, steps=steps)
            row |= dict(precision=precision, layout=layout, batch_size=settings.batch_size, width=settings.width)
            row |= measure.summary(values)
            if name in ("attention", "gradients of both terms"):  # once an epoch
                row["share_of_epoch"] = row["median"] / (steps * step)
            elif name == "step with mismatch":  # in the first batches of an epoch
                extra = [m - s for m, s in zip(values, seconds["step"], strict=True)]
                row["share_of_epoch"] = measure.summary(extra)["median"] * min(made.config.stm_batches, steps)
                row["share_of_epoch"] /= steps * step
            yield row


def epoch_cases(settings: Settings) -> Iterator[Row]:
    """`epoch`: training, evaluation and measures of one epoch, input pipeline included."""
    student, teacher = settings.pairs[0]
    small = {} if settings.image_size >= 32 else dict(train_subset=64, width=settings.width, image_size=8)
    for method in ("kd", "sastc"):
        shared = dict(student=student, teacher=teacher, method=method)
        made = {"digits": training(settings, digits=True, **shared, **small)}
        for precision, layout in settings.modes:
            options = dict(images=settings.epoch_images, precision=precision, memory_format=layout, **shared)
            made[f"random {precision} {layout}"] = training(settings, **options)
        runs = {name: lambda m=m: m.epoch(0, tqdm(disable=True)) for name, m in made.items()}
        seconds = measure.interleave(runs, max(1, settings.repeats // 2), settings.device, warmup=0)
        for name, values in seconds.items():
            config, images = made[name].config, len(made[name].dataset.train)
            row = dict(case="epoch", implementation="library", data=name.split()[0], precision=config.precision)
            row |= dict(layout=config.memory_format, images=images, batch_size=config.batch_size, width=config.width)
            row |= shared | dict(timesteps=config.timesteps) | measure.summary(values)
            yield row | {"images_per_second": images / row["median"]}


def inference_cases(settings: Settings) -> Iterator[Row]:
    """`inference`: logits of one batch in evaluation mode."""
    for student, teacher in settings.pairs:
        runs, made = {}, {}
        for mode in settings.modes:
            made[mode] = training(
                settings, student=student, teacher=teacher, method="kd", precision=mode[0], memory_format=mode[1]
            )
            x, _ = first_batch(made[mode])
            runs[mode] = _inference(made[mode].step, x)
        plain = plain_step(made[settings.modes[0]])
        plain.student.eval()
        images = x.float().contiguous()
        runs = {"plain": torch.no_grad()(lambda p=plain, x=images: p.forward_student(x)[1])} | runs
        seconds = measure.interleave(runs, settings.repeats, settings.device)
        for name, values in seconds.items():
            mode = ("fp32", "contiguous") if name == "plain" else name
            row = dict(case="inference", implementation="plain" if name == "plain" else "library", precision=mode[0])
            row |= dict(layout=mode[1], student=student, timesteps=2, batch_size=len(x), width=settings.width)
            row |= measure.summary(values, seconds["plain"]) | {"flops": measure.count_flops(runs[name])}
            row["images_per_second"] = len(x) / row["median"]
            yield row | {"peak_bytes": measure.peak_bytes(runs[name], settings.device)}


def imagenet_cases(settings: Settings) -> Iterator[Row]:
    """`imagenet`: SASTC steps of the paper's ImageNet pair, blocks recomputed or not, and what its decoder delivers."""
    fields = dict(student="resnet18", teacher="resnet34", method="sastc", timesteps=4) | settings.imagenet
    precision, layout = settings.modes[-1]
    common = dict(case="imagenet", precision=precision, layout=layout) | fields
    runs = {}
    for checkpoint in ("none", "blocks"):
        options = dict(dataset="imagenet", checkpoint=checkpoint, precision=precision, memory_format=layout)
        made = training(settings, **fields, **options)
        runs[checkpoint] = library_step(made.step, *first_batch(made))
    seconds = measure.interleave(runs, settings.repeats, settings.device)
    flops = measure.count_flops(runs["none"])
    for checkpoint, values in seconds.items():
        row = dict(implementation="library", checkpoint=checkpoint, flops=flops) | measure.summary(values)
        row["images_per_second"] = fields["batch_size"] / row["median"]
        yield common | row | {"peak_bytes": measure.peak_bytes(runs[checkpoint], settings.device)}
    images, size = settings.jpegs, fields["image_size"]
    with tempfile.TemporaryDirectory() as folder:
        split = Split(LazyImages(Files(Path(folder), _photographs(Path(folder), images)), size), torch.arange(images))
        dataset = replace(synthetic(1, size), train=split)
        how = dict(train=True, seed=0, epoch=0, drop_last=False, device=settings.device)

        def decode() -> None:
            for _ in epoch_batches(dataset, "train", min(images, 64), **how):
                pass

        row = dict(case="imagenet", implementation="decoder", image_size=size, images=images)
        row |= measure.summary(measure.interleave({"decoder": decode}, settings.repeats, settings.device)["decoder"])
        yield row | {"images_per_second": images / row["median"]}


def _photographs(folder: Path, images: int) -> list[str]:
    """Write JPEGs of the size of ImageNet's, 500 x 375 and about 100 kB: smooth colours under a little noise."""
    generator = torch.Generator().manual_seed(0)
    names = [f"{i}.jpg" for i in range(images)]
    for name in names:
        smooth = F.interpolate(torch.rand(1, 3, 12, 16, generator=generator), (375, 500), mode="bicubic")[0]
        pixels = (255 * smooth + 12 * torch.randn(3, 375, 500, generator=generator)).clamp(0, 255).byte()
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(folder / name, quality=85)
    return names


def _inference(made: Step, x: Tensor) -> Callable[[], Tensor]:
    made.model.eval()

    @torch.no_grad()
    def run() -> Tensor:
        with made.autocast():
            return made.model(x)

    return run


def scaling_cases(settings: Settings) -> Iterator[Row]:
    """`scaling`: a SASTC step against T, batch and width; the calibration against the number of student layers."""
    base = dict(student=PAIRS[0][0], teacher=PAIRS[0][1], method="sastc", timesteps=2)
    last = settings.modes[-1:]
    for quantity, values in settings.scaling.items():
        for value in values:
            if quantity == "student_layers":
                made = training(settings, **base)
                rows = _calibration(settings, "scaling", made.step, value, base)
            else:
                rows = _steps(settings, "scaling", last, **base | {quantity: value})
            for row in rows:
                if row["implementation"] == "plain" or (row["precision"], row["layout"]) == last[0]:
                    yield row | {"against": quantity, "value": value}
