"""Settings as people write them: ``key=value`` words and YAML, read by one reader. No torch."""

import re
from collections.abc import Collection
from typing import Any, ClassVar

import yaml

from sastc.checks import ConfigError, shown
from sastc.fields import check_name, method_options, text_fields


def parse_arguments(arguments: list[str], also: Collection[str] = ()) -> dict[str, Any]:
    """``["timesteps=3", "milestones=[0.5, 0.75]"]`` as a dictionary; values are read by :func:`read_yaml`.

    Names must be fields of :class:`~sastc.config.RunConfig`, options of the method that is given, or be in `also`.
    """
    values: dict[str, Any] = {}
    given = dict(argument.partition("=")[::2] for argument in arguments)
    own = method_options(given.get("method", ""))
    texts = text_fields() | {name for name, field in own.items() if isinstance(field.default, str)}
    for argument in arguments:
        name, equals, text = argument.partition("=")
        if not equals:
            raise ConfigError(f"{shown(argument)}: must be key=value")
        if name not in also:
            check_name(name, own)
        if name in values:
            raise ConfigError(f"{shown(argument)}: {name} is given twice")
        if name in texts:
            values[name] = text
            continue
        try:
            value = read_yaml(text)
        except ValueError as error:
            raise ConfigError(f"{name}={shown(text)}: cannot be read: {error}") from None
        values[name] = tuple(value) if isinstance(value, list) else value
    return values


class _Loader(yaml.SafeLoader):
    """YAML whose scalars mean what they look like; see :func:`read_yaml`."""

    yaml_implicit_resolvers: ClassVar[dict] = {}

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> dict:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := [key for key in keys if keys.count(key) > 1 and key != "<<"]:
            raise yaml.MarkedYAMLError(problem=f"{shown(twice[0])} is given twice", problem_mark=node.start_mark)
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in text_fields():
                for scalar in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    if isinstance(scalar, yaml.ScalarNode):
                        scalar.tag = "tag:yaml.org,2002:str"
        return super().construct_mapping(node, deep)

    def decimal(self, node: yaml.ScalarNode) -> int:
        return int(self.construct_scalar(node))

    def number(self, node: yaml.ScalarNode) -> float:
        return float(re.sub(r"\.(?=inf|nan)", "", self.construct_scalar(node).lower()))


_DIGITS = "[0-9]+(_[0-9]+)*"
for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF", list("yYnNtTfFoO")),
    ("int", rf"[-+]?{_DIGITS}", list("-+0123456789")),
    (
        "float",
        rf"[-+]?(({_DIGITS}\.?|({_DIGITS})?\.{_DIGITS})([eE][-+]?{_DIGITS})?|\.?(inf|Inf|INF))|\.?(nan|NaN|NAN)",
        list("-+0123456789.iInN"),
    ),
    ("merge", "<<", ["<"]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), _first)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.decimal)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.number)


def read_yaml(text: str) -> Any:
    """The content of a text in YAML, as the command line and experiment files mean it.

    Numbers are decimal: ``010`` is ten and ``1e-3`` a number, where YAML 1.1 has eight and a text; ``0x10``, ``1:30``
    and dates are text. The value of a field that is text stays as it is written (``stm_log_base: 10``). A name given
    twice in one mapping is an error.

    Raises
    ------
    ValueError
        The text is not YAML; the message says where.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise ValueError(f"{error.problem or error.context}{where}") from None
    except Exception as error:  # of PyYAML's constructors: an explicit tag on another value, brackets nested too deep
        raise ValueError(" ".join(f"{type(error).__name__}: {error}".split())) from None
