"""RunConfig: every hyper-parameter of a run, validated, with its documented default; what the run is called.

The fields are those of :mod:`sastc.fields`; one left at ``None`` takes its value from :mod:`sastc.presets`, so a
finished config is always complete. Nothing here imports torch: configs are cheap to build, list and check.
"""

import dataclasses
import functools
import hashlib
import json
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sastc import methods
from sastc.attention import attention_bounds
from sastc.checks import ConfigError as ConfigError
from sastc.checks import allowed_values as allowed_values
from sastc.checks import check_value, shown, suggestion
from sastc.facts import DATASETS as DATASETS
from sastc.facts import EVENT_DATASETS as EVENT_DATASETS
from sastc.fields import DISTIL as DISTIL
from sastc.fields import EVERY as EVERY
from sastc.fields import GROUPS as GROUPS
from sastc.fields import METHODS as METHODS
from sastc.fields import MODELS, Fields, all_fields, check_name, method_options
from sastc.fields import SCALES as SCALES
from sastc.fields import STUDENT as STUDENT
from sastc.fields import VARIANTS as VARIANTS
from sastc.methods import REGISTRY, Method
from sastc.presets import presets
from sastc.reading import parse_arguments
from sastc.reading import read_yaml as read_yaml
from sastc.references import Own

ROLES = ("student", "teacher")
CODE = ("method", *ROLES)  # settings that may be code of one's own
SIZES = ("num_classes", "in_channels", "image_size", "width")
OF_OURS = ("taps", "student_tap", "output", "tdbn_alpha")  # of the library's students alone
TAKEN = (*MODELS, *EVERY, *DATASETS)  # names that no network of one's own may have


@functools.cache
def neuron_fields() -> tuple[str, ...]:
    """Names of the settings of the neuron."""
    return tuple(name for name, field in all_fields().items() if field.metadata["group"] == "neuron")


def arguments(role: str) -> tuple[str, ...]:
    """What the function of a network of one's own may ask for."""
    return (*SIZES, "timesteps", *neuron_fields()) if role == "student" else SIZES


class NoEffectError(ConfigError):
    """A setting that does nothing with networks of one's own, which do not ask for it."""

    def __init__(self, field: str, value: Any, networks: list[str]):
        self.field, self._given = field, (field, value, networks)
        super().__init__(f"{field}={shown(value)}: does nothing with {' and '.join(networks)}: leave it out")

    def __reduce__(self):  # one process of several sends it to the others
        return type(self), self._given


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig(Fields):
    """All hyper-parameters of one run; ``RunConfig(student="vgg11", method="sastc", timesteps=3)``.

    Fields at ``None`` come from the presets of `scale`, `dataset` and `variant`. ``python -m sastc explain`` prints
    every field with its meaning and choices.

    Raises
    ------
    ConfigError
        On the first field that is not valid, before any work starts.
    """

    options: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)  # of the method
    method_class: type[Method] | None = dataclasses.field(default=None, repr=False, compare=False)  # teacher: None
    networks: Mapping[str, Own] = dataclasses.field(default_factory=dict, repr=False, compare=False)  # of one's own

    def __post_init__(self):
        kind, networks = self._find_method(), self._find_networks()
        fields, left_open = all_fields(), {}
        for name, field in fields.items():
            if name == "method" and kind is not None:
                object.__setattr__(self, name, kind.name)
            elif name in networks:
                object.__setattr__(self, name, networks[name].name)
            elif field.default is not None or getattr(self, name) is not None:
                object.__setattr__(self, name, check_value(field, getattr(self, name)))
            else:
                left_open[name] = field
        values = presets(self)
        for name, field in left_open.items():
            object.__setattr__(self, name, check_value(field, values.get(name)))
        self._check_together()

    def _find_method(self) -> type[Method] | None:
        """The class of what was given as method; its options are checked, and completed by their defaults."""
        given, known = self.method, self.method_class
        kind = known if known is not None and known.name == given else methods.find(given)
        options = given.values if isinstance(given, Method) else {}
        if kind is not None:
            _check_declarations(kind)  # type: ignore[arg-type]  # a class is hashable
            options = kind(**options | dict(self.options)).values
        object.__setattr__(self, "method_class", kind)
        object.__setattr__(self, "options", options)
        return kind

    def _find_networks(self) -> dict[str, Own]:
        """The student and the teacher that are not the library's, by role."""
        found = {}
        for role in ROLES:
            given, known = getattr(self, role), self.networks.get(role)
            own = known if known is not None and known.name == given else Own.of(role, given, arguments(role), TAKEN)
            if own is not None:
                found[role] = own
        object.__setattr__(self, "networks", found)
        return found

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """An option of the method, beside the fields."""
            if name in (options := self.__dict__.get("options", {})):
                return options[name]
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _check_together(self) -> None:
        if self.method == "teacher":
            object.__setattr__(self, "student", "")  # a teacher is the same whatever student it is for
            object.__setattr__(self, "networks", {r: own for r, own in self.networks.items() if r == "teacher"})
        needs = {"student": self.method != "teacher"}
        needs["teacher"] = self.method_class is None or self.method_class.needs_teacher
        for role, needed in needs.items():
            if needed and not getattr(self, role):
                raise ConfigError(f"{role}='': method={self.method!r} needs one of {', '.join(MODELS)}")
        if self.method_class is not None:
            self.method_class.check(self)
        self._check_own()
        if self.batch_size % self.accumulate or self.batch_size < 2 * self.accumulate:
            raise ConfigError(
                f"accumulate={self.accumulate!r}: must divide batch_size={self.batch_size} into micro-batches of "
                "at least 2 instances"
            )
        if self.nesterov and not self.momentum:
            raise ConfigError("nesterov=True: needs momentum > 0")
        if list(self.milestones) != sorted(self.milestones):
            raise ConfigError(f"milestones={self.milestones!r}: must be in ascending order")

    def _check_own(self) -> None:
        """A ConfigError for a setting that does nothing: networks of one's own do not ask for it."""
        used = [role for role in ROLES if getattr(self, role)]
        if not self.networks or any(own.function is None for own in self.networks.values()):  # read from a record
            return
        deaf = {name: ["student"] for name in (*neuron_fields(), *OF_OURS)}
        deaf |= {"teacher_width": ["teacher"], "width": used, "taps": used}
        usual = {name: field.default for name, field in all_fields().items()} | presets(self)
        for name, roles in deaf.items():
            asked = "width" if name == "teacher_width" else name
            own = [self.networks.get(role) for role in roles]
            if getattr(self, name) != usual[name] and own and not any(o is None or o.asks_for(asked) for o in own):
                raise NoEffectError(name, getattr(self, name), [f"{r}={getattr(self, r)!r}" for r in roles])

    @classmethod
    def fields(cls) -> dict[str, dataclasses.Field]:
        """All fields by name; ``metadata`` holds doc, choices, low, high and the methods a field applies to."""
        return dict(all_fields())

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "RunConfig":
        """A config from names and values, the options of its method among them; unknown names are errors."""
        kind = values.get("method_class") or methods.find(values.get("method", all_fields()["method"].default))
        own = kind.options if kind is not None else {}
        for name in values:
            check_name(name, (*own, "method_class", "networks"))
        return cls(
            **{name: value for name, value in values.items() if name not in own},
            options={name: value for name, value in values.items() if name in own},
        )

    def new_method(self) -> Method:
        """The method of this run, with its options: an object that builds what it trains, and computes its losses."""
        kind = self.method_class or REGISTRY["baseline"]  # a teacher learns from the labels, too
        method = kind(**self.options)
        method.config = self
        return method

    @classmethod
    def from_arguments(cls, arguments: list[str]) -> "RunConfig":
        """A config from ``["key=value", ...]``, the values read as YAML."""
        return cls.from_dict(parse_arguments(arguments))

    @classmethod
    def from_notebook(cls, namespace: dict[str, Any], also: tuple[str, ...] = ()) -> "RunConfig":
        """A config from a notebook's ``globals()``: every plain variable is a field, or named in `also`, or an error.

        papermill only warns of a parameter that the notebook does not have; here a misspelt name stops the notebook,
        and so do settings that a file of parameters holds one level too deep.
        """
        plain, others = (str, int, float, bool, list, tuple, dict, type(None)), ("In", "Out", *also)
        names = [n for n in namespace if not (n.startswith("_") or n.isupper() or n in others)]
        values = {name: namespace[name] for name in names if isinstance(namespace[name], plain) or name in CODE}
        own = method_options(values.get("method"))
        for name in values:
            check_name(name, (*also, *own))
        return cls.from_dict({n: tuple(v) if isinstance(v, list) else v for n, v in values.items()})

    def replace(self, **changes) -> "RunConfig":
        """The same config with some fields changed; fields that have their preset's value follow the presets."""
        values, preset = {name: getattr(self, name) for name in all_fields()}, presets(self)
        open_again = {name: None for name, value in preset.items() if values[name] == value}
        if changes.get("method", self.method) == self.method:
            values |= {"method_class": self.method_class, **self.options}
        values["networks"] = self.networks
        return RunConfig.from_dict(values | open_again | changes)

    def to_dict(self, relevant: bool = False) -> dict[str, Any]:
        """All fields, in a form that JSON keeps; with `relevant` only those that decide the run's numbers."""
        names = [name for name, field in all_fields().items() if not relevant or self._matters(field)]
        values = {name: getattr(self, name) for name in names} | dict(self.options)
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}

    def _matters(self, field: dataclasses.Field) -> bool:
        """Whether a field decides numbers of this run."""
        if field.name == "timesteps":
            return self.takes_steps
        scope, kind = field.metadata["scope"], self.method_class
        mine = scope == "all" or (kind is not None and (scope == "students" or field.name in kind.fields))
        return mine and not field.metadata["exact"]

    @property
    def _settings(self) -> dict[str, dataclasses.Field]:
        """All fields, and the method's options."""
        return all_fields() | (self.method_class.options if self.method_class is not None else {})

    @property
    def takes_steps(self) -> bool:
        """Whether the run depends on T: every student's does, and a teacher's on event data, which come in T frames."""
        return self.method != "teacher" or self.dataset in EVENT_DATASETS

    def attention_bounds(self, layers: int) -> tuple[float, float]:
        """Smallest and largest weight that SASTC can give among so many teacher layers with these settings."""
        return attention_bounds(layers, self.qk_norm, self.score_scale, self.attention)

    @property
    def changed(self) -> dict[str, Any]:
        """Settings that matter to this run and have neither their default nor their preset's value.

        What is run, at which scale and with which seed is not among them.
        """
        standard = {name: field.default for name, field in self._settings.items()} | presets(self)
        what = ("dataset", "student", "teacher", "method", "timesteps", "scale", "seed")
        values = {name: getattr(self, name) for name in self.to_dict(relevant=True) if name not in what}
        return {name: v for name, v in values.items() if v != standard[name]}

    @property
    def scaled(self) -> dict[str, tuple[Any, Any]]:
        """What a smaller scale changes of this run: its value and that of the paper's scale, by field."""
        names = ("dataset", "student", "teacher", "method", "timesteps", "variant")
        shared = {name: getattr(self, name) for name in names}
        full = RunConfig(**shared, scale="paper", method_class=self.method_class, networks=self.networks)
        left_open = [name for name in self.to_dict(relevant=True) if self._settings[name].default is None]
        both = {name: (getattr(self, name), getattr(full, name)) for name in left_open}
        return {name: pair for name, pair in both.items() if pair[0] != pair[1]}

    def teacher_config(self) -> "RunConfig | None":
        """The run that trains this run's teacher; ``None`` if there is none, or if `teacher_run` names one."""
        return self._teacher

    @functools.cached_property
    def _teacher(self) -> "RunConfig | None":
        if self.method == "teacher" or not self.teacher or self.teacher_run:
            return None
        values = {name: getattr(self, name) for name, field in all_fields().items() if field.metadata["teacher"]}
        values["width"] = self.teacher_width or self.width
        values["reshuffle"] = self.teacher_reshuffle
        if self.dataset in EVENT_DATASETS:
            values["timesteps"] = self.timesteps
        if self.subset_teacher == "same_subset":
            values["train_fraction"] = self.train_fraction
        if self.noise_teacher == "same_noise":
            values["label_noise"] = self.label_noise
        values |= dict(seed=self.teacher_seed, epochs=self.teacher_epochs or None, networks=self.networks)
        return RunConfig(method="teacher", **values)

    @functools.cached_property
    def identity(self) -> str:
        """Ten hexadecimal digits: hash of the fields that matter to this run, and of its teacher's.

        A field at a default that no preset decides, or at the value that it `was` before it existed, is left out, so
        that a field added later leaves every recorded run its name.
        """
        usual = {n: f.metadata["was"] if f.default is None else f.default for n, f in self._settings.items()}
        teacher = self.teacher_config()
        chosen = {
            name: value
            for name, value in self.to_dict(relevant=True).items()
            if usual[name] is None or getattr(self, name) != usual[name]
        }
        content = [chosen, teacher.identity if teacher else self.teacher_run]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:10]

    @property
    def name(self) -> str:
        """Name of the run's folder, readable and unique."""
        steps = [f"T{self.timesteps}"] if self.takes_steps else []
        parts = [self.dataset, self.student, self.teacher, self.method, *steps, f"s{self.seed}", self.identity]
        return "-".join(p for p in parts if p)

    @property
    def arguments(self) -> list[str]:
        """The shortest ``key=value`` arguments that give this config."""
        values, default = self.to_dict(), RunConfig().to_dict()
        if self.method == "teacher":
            default["student"] = ""
        first = [name for name, field in all_fields().items() if field.metadata["group"] == "run"]
        chosen = {n: values[n] for n in first if values[n] != default[n]}
        base = RunConfig(**chosen, method_class=self.method_class, networks=self.networks).to_dict()
        chosen |= {n: v for n, v in values.items() if v != base[n]}
        if self.method_class is not None and self.method_class.reference:
            chosen["method"] = self.method_class.reference
        chosen |= {role: own.reference for role, own in self.networks.items()}
        return [f"{n}={json.dumps(v) if not isinstance(v, str) else v}" for n, v in chosen.items()]

    @property
    def command(self) -> str:
        """Command that makes this run."""
        return shlex.join(["python", "-m", "sastc", "train", *self.arguments])

    def learning_rate_at(self, epoch: float) -> float:
        """Learning rate so many epochs after the start: 2.5 is the middle of the third.

        Milestones are rounded to whole epochs.
        """
        if self.schedule == "triangle":
            done = epoch / self.epochs
            rising = done < self.schedule_peak or self.schedule_peak == 1
            return self.learning_rate * (done / self.schedule_peak if rising else (1 - done) / (1 - self.schedule_peak))
        drops = sum(epoch >= round(m * self.epochs) for m in self.milestones)
        return self.learning_rate * self.lr_drop**drops

    def beta_at(self, epoch: int) -> float:
        """Weight β of the feature loss in a zero-based epoch."""
        thirds = self.beta_schedule == "thirds" or (self.beta_schedule == "preset" and self.dataset in EVENT_DATASETS)
        return self.beta * (0.01, 0.1, 1.0)[3 * epoch // self.epochs] if thirds else self.beta


@functools.cache
def _check_declarations(kind: type[Method]) -> None:
    """Raise a ConfigError where a method declares fields, options or presets that it may not."""
    by_method = [name for name, field in all_fields().items() if field.metadata["scope"] == "methods"]
    for name in kind.fields if not kind.recorded else ():
        if name not in by_method:
            hint = suggestion(name, by_method, f"must be one of {', '.join(by_method)}")
            raise ConfigError(f"method {kind.name}: fields: {shown(name)}: {hint}")
    taken = (*all_fields(), "options", "method_class", "networks", "config", *vars(Method))
    for name in kind.options:
        if hasattr(RunConfig, name) or name in taken:
            raise ConfigError(f"method {kind.name}: option {name}: must have another name, a config has this one")
    for name in kind.presets:
        if name not in all_fields() or all_fields()[name].default is not None:
            raise ConfigError(f"method {kind.name}: presets: {shown(name)}: must be a field that is left open")
