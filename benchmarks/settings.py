"""What is measured, and how large: one object that every case reads."""

from dataclasses import dataclass, field

import torch

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
PAIRS = (("vgg11", "resnet19"), ("resnet18", "wrn28_4"))
# Precision and memory format of the library's timed steps; the plain reference is fp32 and contiguous.
MODES = (("fp32", "contiguous"), ("fp32", "channels_last"), ("bf16", "channels_last"))


@dataclass(kw_only=True)
class Settings:
    """Sizes of all cases.

    Attributes
    ----------
    device : torch.device
    repeats, lif_repeats : int
        Rounds of every comparison, and of those of single neurons, which are short.
    width : float
        Channel factor of all networks; 1 is the paper's.
    batch_size, image_size : int
    lif_shape : tuple of int
        (B, C, H, W) of the layer of neurons.
    lif_timesteps, compiled_timesteps, timesteps : tuple of int
        T of the neuron, of the compiled neuron (compiling takes long), and of everything else.
    matmul : int
        Side of the matrices that give the peak.
    epoch_images : int
        Images of an epoch of CIFAR's shape.
    scaling : dict
        Values of each quantity against which the cost is drawn.
    wide : dict
        Fields of the cases at the paper's width, or nothing: their steps are long, so the batch is small.
    imagenet : dict
        Width, batch and image size of the steps on ImageNet's images.
    jpegs : int
        Files that the decoder is timed on.
    peers : dict
        Version of every other package, or None.
    """

    device: torch.device
    repeats: int = 5
    lif_repeats: int = 9
    width: float = 1 / 8
    batch_size: int = 128
    image_size: int = 32
    lif_shape: tuple[int, ...] = (128, 32, 16, 16)
    lif_timesteps: tuple[int, ...] = (2, 3, 7)
    compiled_timesteps: tuple[int, ...] = (2,)
    timesteps: tuple[int, ...] = (2, 3, 7)
    pairs: tuple[tuple[str, str], ...] = PAIRS
    modes: tuple[tuple[str, str], ...] = MODES
    matmul: int = 2048
    epoch_images: int = 1280
    scaling: dict[str, tuple[float, ...]] = field(
        default_factory=lambda: {
            "timesteps": (1, 2, 4, 8),
            "batch_size": (16, 32, 64, 128),
            "student_layers": (1, 2, 3, 4),
            "width": (1 / 16, 1 / 8, 1 / 4),
        }
    )
    wide: dict[str, float] = field(default_factory=lambda: dict(width=1.0, batch_size=16))
    imagenet: dict[str, float] = field(default_factory=lambda: dict(width=1.0, batch_size=4, image_size=224))
    jpegs: int = 256
    peers: dict[str, str | None] = field(default_factory=dict)


def default(device: torch.device, repeats: int | None, full: bool) -> Settings:
    """Sizes that suit the device: narrow networks on the CPU unless `full`, the paper's on a GPU."""
    if device.type == "cuda":
        wide = {"timesteps": (1, 2, 4, 7), "batch_size": (32, 64, 128, 256), "student_layers": (1, 2, 3, 4)}
        return Settings(
            device=device,
            repeats=repeats or 20,
            lif_repeats=repeats or 20,
            width=1.0,
            lif_shape=(128, 128, 32, 32),
            compiled_timesteps=(2, 3, 7),
            matmul=8192,
            epoch_images=12_800,
            scaling=wide | {"width": (1 / 4, 1 / 2, 1, 2)},
            wide={},
            imagenet=dict(width=1.0, batch_size=64, image_size=224),
            jpegs=2048,
        )
    settings = Settings(device=device, repeats=repeats or 3, lif_repeats=repeats or 9, width=1.0 if full else 1 / 8)
    if full:
        settings.compiled_timesteps, settings.wide = settings.lif_timesteps, {}
    return settings


def tiny(device: torch.device) -> Settings:
    """Seconds for everything: to see that it runs, not to measure."""
    return Settings(
        device=device,
        repeats=1,
        lif_repeats=1,
        width=1 / 32,
        batch_size=8,
        image_size=8,
        lif_shape=(2, 4, 4, 4),
        lif_timesteps=(2,),
        compiled_timesteps=(),
        timesteps=(2,),
        pairs=PAIRS[:1],
        modes=(MODES[0], MODES[-1]),
        matmul=64,
        epoch_images=16,
        wide=dict(width=1 / 16, batch_size=4),
        imagenet=dict(width=1 / 32, batch_size=2, image_size=64),
        jpegs=4,
        scaling={"timesteps": (1, 2), "batch_size": (4, 8), "student_layers": (1, 2), "width": (1 / 32, 1 / 16)},
    )
