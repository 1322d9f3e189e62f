"""How things are called in tables, figures and titles."""

from typing import Any

from sastc.config import RunConfig
from sastc.facts import FACTS
from sastc.methods import REGISTRY
from sastc.records import Run


class _Labels(dict):
    """Names of networks of one's own are shown as they are."""

    def __missing__(self, name: str) -> str:
        return name


LABELS = _Labels({
    **{name: method.label for name, method in REGISTRY.items()}, "teacher": "Teacher (ANN)",
    "vgg11": "VGG-11", "vgg13": "VGG-13", "resnet18": "ResNet-18", "resnet19": "ResNet-19", "resnet34": "ResNet-34",
    "resnet32x4": "ResNet-32x4", "wrn16_2": "WRN-16-2", "wrn28_4": "WRN-28-4", "wrn40_2": "WRN-40-2",
    "pyramidnet20": "PyramidNet-20", "vggsnn": "VGGSNN", **{name: facts.label for name, facts in FACTS.items()},
})  # fmt: skip
SCALE_LABELS = {
    "quick": "smoke test", "slim": "small scale", "quarter": "quarter width", "paper": "the paper's scale",
}  # fmt: skip


def run_title(run: Run) -> str:
    """Title of a recorded run, with what it says of its data."""
    recorded = run.has("provenance.json")
    return title_of(run.config, run.provenance["data"]["name"] if recorded else None)


def title_of(config: RunConfig, data: str | None = None) -> str:
    """Title of a run's page: ``VGG-11 & ResNet-19, SASTC, T=2, seed 0, epochs=5 (Digits, smoke test)``.

    Settings that differ from the presets follow the seed, so that no two runs have one title. `data` is what a recorded
    run says of its data, where that is more than the dataset's name.
    """
    words = [f"seed {config.seed}"] + [f"{name}={shown(value)}" for name, value in config.changed.items()]
    if config.takes_steps:
        words.insert(0, f"T={config.timesteps}")
    if config.method == "teacher":
        who = [LABELS[config.teacher], "teacher"]
    else:
        pair = LABELS[config.student] + (f" & {LABELS[config.teacher]}" if config.method_class.needs_teacher else "")
        who = [pair, method_label(config)]
    return f"{', '.join(who + words)} ({data or LABELS[config.dataset]}, {SCALE_LABELS[config.scale]})"


def method_label(config: RunConfig) -> str:
    """What a run's method is called, the library's or not."""
    return LABELS["teacher"] if config.method_class is None else config.method_class.label


def shown(value: Any) -> str:
    """A setting's value as it is typed in a terminal."""
    if isinstance(value, tuple):
        return "[" + ", ".join(f"{v:.4g}" for v in value) + "]"
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else f"{value}"
