"""What is known of the datasets before anything is loaded, one row each; data/README.md has the rest. No torch."""

from typing import NamedTuple


class Facts(NamedTuple):
    """Name, published sizes and constants of a dataset; None for what the user's own images decide."""

    label: str  #: In tables and titles.
    train: int | None  #: Images, or recordings, to train on.
    test: int | None
    channels: int  #: 2 of event data: OFF and ON.
    classes: int | None
    image_size: int  #: Height and width in pixels that `load_dataset` gives.
    run_size: int | None = None  #: The same in runs, where they see another size.
    mean: tuple[float, ...] = ()  #: Of all training pixels, by channel, from 0 to 1; empty: computed.
    std: tuple[float, ...] = ()

    @property
    def counts(self) -> tuple[int | None, int | None]:
        """Training and test images."""
        return self.train, self.test


# paper: gives no statistics  released: CIFAR's, the same to three or four digits
CIFAR10 = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
CIFAR100 = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

FACTS = {
    "digits": Facts("Digits", 1437, 360, 1, 10, 16, 12),
    "cifar10": Facts("CIFAR-10", 50_000, 10_000, 3, 10, 32, None, *CIFAR10),
    "cifar100": Facts("CIFAR-100", 50_000, 10_000, 3, 100, 32, None, *CIFAR100),
    "imagenet": Facts("ImageNet", 1_281_167, 50_000, 3, 1000, 224, None, *IMAGENET),
    "imagefolder": Facts("ImageFolder", None, None, 3, None, 224, None, *IMAGENET),
    "digits_dvs": Facts("Digits-DVS (simulated)", 1437, 360, 2, 10, 16, 8),
    "nmnist": Facts("N-MNIST", 60_000, 10_000, 2, 10, 34),
    "dvs_gesture": Facts("DVS-Gesture", 1176, 288, 2, 11, 64),
    "dvs_cifar10": Facts("DVS-CIFAR10", 9000, 1000, 2, 10, 48),
}
DATASETS = tuple(FACTS)
EVENT_DATASETS = tuple(name for name, facts in FACTS.items() if facts.channels == 2)
