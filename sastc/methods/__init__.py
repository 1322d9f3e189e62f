"""Distillation methods, one file each: its options, what it trains beside the student, what it needs, its loss.

A file holds one class, a :class:`Method`, and is found by being here. A method of your own is a class of the same
shape: ``sastc.run(config, method=MyMethod)``, or ``method=my_file.py:MyMethod`` on the command line. Files import no
torch at their top, since :mod:`sastc.config` reads names and options from them; functions import what they use.
"""

import dataclasses
import importlib
import inspect
import pkgutil
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from sastc.checks import ConfigError, check_value, option, shown, suggestion
from sastc.references import NAME, in_small_letters, is_reference, load, reference_of, source_sha256

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sastc.config import RunConfig

__all__ = ["Batch", "Method", "option"]
NEEDS = ("teacher_logits", "teacher_features", "step_logits")


@dataclasses.dataclass(kw_only=True)
class Batch:
    """What a method sees of one batch, or of one micro-batch.

    Sizes: T time steps, B instances, N classes. What a method does not ask for in `needs` may be ``None``.
    """

    labels: "Tensor"  #: (B,) class indices.
    logits: "Tensor"  #: (B, N), the student's mean over time; with bf16 arithmetic in bf16.
    features: "list[Tensor]"  #: The student's candidate layers, (T, B, C, H, W).
    cross_entropy: "Tensor"  #: Of the logits, in at least float32; the mean over B.
    step_logits: "Tensor | None" = None  #: (T, B, N), the student's output of every step.
    teacher_logits: "Tensor | None" = None  #: (B, N), without gradient.
    teacher_features: "list[Tensor] | None" = None  #: (B, C, H, W), or (T, B, C, H, W) if it sees each frame.
    trained: Any = None  #: What the module of :meth:`Method.build` returned.
    teacher: "nn.Module | None" = None  #: The teacher, in evaluation mode; its weights get no gradient.
    epoch: int = 0  #: From zero.
    share: float = 1.0  #: Of the step's instances that are here. Losses are means; divide a sum by this.


class Method:
    """How a student is trained: a subclass overrides what differs from this class.

    Options of its own are annotated attributes, ``alpha: float = option(1.0, "weight of ...", low=0)``, and are given
    as ``MyMethod(alpha=2.0)``, or as ``alpha=2.0`` beside the fields of the config; ``self.alpha`` has the value.
    Fields of the config that a method uses are listed in `fields` and read from ``self.config``.

    Raises
    ------
    ConfigError
        An option that the method does not have, or a value that the option may not have.
    """

    name: ClassVar[str] = ""  #: In configs, tables and names of runs; by default the class's name in small letters.
    label: ClassVar[str] = ""  #: In titles and figures; by default the class's name.
    colour: ClassVar[str] = "#009e73"
    marker: ClassVar[str] = "v"
    place: ClassVar[int | None] = None  #: In the paper's tables; ``None`` for a method that is not in them.
    cost: ClassVar[float] = 1.0  #: Time of an epoch relative to KD's, roughly.
    needs: ClassVar[tuple[str, ...]] = ()  #: Of :data:`NEEDS`.
    needs_teacher: ClassVar[bool] = False  #: Whether one of them is the teacher's.
    fields: ClassVar[tuple[str, ...]] = ()  #: Fields of the config that it uses, of those that do not apply to all.
    presets: ClassVar[Mapping[str, Any]] = {}  #: Its values of fields that are left open, where they differ.
    options: ClassVar[dict[str, dataclasses.Field]] = {}  #: Options of its own by name; collected from the attributes.
    reference: ClassVar[str] = ""  #: ``file.py:Class`` of a method that is not one of the library's.
    source: ClassVar[str | None] = None  #: SHA-256 of that file as it was read.
    recorded: ClassVar[bool] = False  #: Whether this is what a record says of a method, without its code.

    config: "RunConfig"  #: Of the run; set before training.

    def __init_subclass__(cls, **arguments: Any):
        super().__init_subclass__(**arguments)
        if "name" not in cls.__dict__:
            cls.name = in_small_letters(cls.__name__)
        if "label" not in cls.__dict__:
            cls.label = cls.__name__
        cls.place = cls.__dict__.get("place")
        cls.needs_teacher = any(need.startswith("teacher") for need in cls.needs)
        cls.options = dict(cls.options)
        annotations = inspect.get_annotations(cls)
        for name, field in list(cls.__dict__.items()):
            if isinstance(field, dataclasses.Field):
                field.name, field.type = name, annotations.get(name, type(field.default))
                cls.options[name] = field
                setattr(cls, name, field.default)

    def __init__(self, **options: Any):
        for name, value in options.items():
            if name not in self.options:
                allowed = ", ".join(self.options) or "none: it has no options"
                hint = suggestion(name, self.options, f"must be one of {allowed}")
                raise ConfigError(f"unknown option {shown(name)} of method {self.name}: {hint}")
            setattr(self, name, check_value(self.options[name], value))

    @property
    def values(self) -> dict[str, Any]:
        """All options of its own with their values."""
        return {name: getattr(self, name) for name in self.options}

    @classmethod
    def check(cls, config: "RunConfig") -> None:
        """Raise a ConfigError where fields of a config do not go together for this method."""

    def check_teacher(self, teacher: "nn.Module") -> None:
        """Raise a ValueError where a teacher, in :class:`sastc.models.Network`'s terms, lacks what the method needs."""

    def build(self, student_shapes: Sequence[tuple], teacher_shapes: Sequence[tuple]) -> "nn.Module | None":
        """What is trained beside the student, for layers of these (C, H, W); by default nothing.

        Where `needs` has "teacher_features" it is called in every step as ``module(student_features, teacher_features,
        instances)``; `instances` is the size of the whole batch where several processes share it and similarities are
        those of all instances, else ``None``.
        """
        return None

    @property
    def leaves_unused(self) -> bool:
        """Whether weights of the module get no gradient."""
        return False

    def losses(self, batch: Batch) -> "dict[str, Tensor]":
        """The loss of a batch: ``"loss"``, which is minimised, and its parts, whose means are recorded every epoch."""
        raise NotImplementedError(f"{type(self).__name__} has no losses")

    def terms(self, parts: "dict[str, Tensor]", epoch: int) -> "tuple[Tensor, Tensor] | None":
        """Two terms of the loss whose gradients are compared on each epoch's first batch; by default none are."""
        return None

    def look(self, batch: Batch) -> "dict[str, Tensor]":
        """What `attention_steps` records of single steps, by name: (T, B, ...), of which the mean over B is kept."""
        return {}

    def similarities(self, batch: Batch) -> "tuple[Tensor, Tensor] | None":
        """Similarity matrices (Eq. 3) that the loss has computed anyway; without them they are computed if measured."""
        return None


def find(method: Any) -> type[Method] | None:
    """The class of a method: by the name of one of the library's, by ``file.py:Class``, or the class itself.

    Returns ``None`` for any other text.

    Raises
    ------
    ConfigError
        The file cannot be read or imported, has no such class, or the class is not a method as it should be.
    """
    if isinstance(method, Method | type):
        return _checked(method if isinstance(method, type) else type(method))
    if not isinstance(method, str):
        return None
    if not is_reference(method):
        return REGISTRY.get(method)
    found, digest = load("method", method)
    cls = _checked(found, f"method={shown(method)}")
    cls.reference, cls.source = method, digest
    return cls


def _checked(cls: Any, what: str = "") -> type[Method]:
    """The class if it is a method as it should be, or a ConfigError."""
    what = what or f"method={getattr(cls, '__name__', shown(cls))}"
    if not (isinstance(cls, type) and issubclass(cls, Method) and cls is not Method):
        raise ConfigError(f"{what}: must be a subclass of sastc.Method")
    if REGISTRY.get(cls.name) is cls or cls.recorded:
        return cls
    if not NAME.fullmatch(cls.name) or cls.name in {*REGISTRY, "teacher"}:
        taken = ", ".join([*REGISTRY, "teacher"])
        raise ConfigError(f"{what}: name={shown(cls.name)}: must be small letters, digits and _, and none of {taken}")
    if wrong := [need for need in cls.needs if need not in NEEDS] if isinstance(cls.needs, tuple) else [cls.needs]:
        raise ConfigError(f"{what}: needs={shown(wrong[0])}: must be a tuple of {', '.join(NEEDS)}")
    if cls.losses is Method.losses:
        raise ConfigError(f"{what}: must have a function losses(self, batch)")
    cls.reference = cls.__dict__.get("reference") or reference_of(cls, cls.name)
    return cls


def facts(cls: type[Method] | None) -> dict[str, Any] | None:
    """What a run records of a method that is not one of the library's: class, file and the file's SHA-256."""
    if cls is None or REGISTRY.get(cls.name) is cls:
        return None
    digest = cls.__dict__.get("source") or source_sha256(cls)
    return {"name": cls.name, "class": cls.__qualname__, "reference": cls.reference, "sha256": digest}


def described(cls: type[Method]) -> dict[str, Any]:
    """What is needed to read a config of this method without its file, see :func:`from_description`."""
    texts = ("name", "label", "colour", "marker", "reference")
    values = {name: getattr(cls, name) for name in texts} | {"needs": list(cls.needs), "fields": list(cls.fields)}
    values |= {"presets": dict(cls.presets), "options": {name: f.default for name, f in cls.options.items()}}
    return values | {"types": {n: getattr(f.type, "__name__", str(f.type)) for n, f in cls.options.items()}}


def from_description(values: Mapping[str, Any]) -> type[Method]:
    """A method without its code, as a record describes it: its settings can be read, but it cannot train."""
    options = {name: option(tuple(v) if isinstance(v, list) else v, "") for name, v in values["options"].items()}
    types = {"__annotations__": values.get("types", {})}  # earlier records have none: that of the default
    texts = {name: values[name] for name in ("name", "label", "colour", "marker", "reference", "presets")}
    sequences = {name: tuple(values[name]) for name in ("needs", "fields")}
    return type(values["name"], (Method,), texts | sequences | options | types | {"recorded": True})


def _found() -> dict[str, type[Method]]:
    """The library's methods by name, those of the paper's tables first."""
    found = []
    for module in pkgutil.iter_modules(__path__):
        contents = vars(importlib.import_module(f"{__name__}.{module.name}")).values()
        classes = [c for c in contents if isinstance(c, type) and issubclass(c, Method)]
        found += [c for c in classes if c.__module__ == f"{__name__}.{module.name}" and c.name]
    found.sort(key=lambda c: (c.place is None, c.place, c.name))
    return {c.name: c for c in found}


REGISTRY: dict[str, type[Method]] = {}
REGISTRY |= _found()
