"""Shows RunConfig in the book from the code itself, so that no page can go stale.

``{field}`gamma` `` links to a field's row and fails the build if there is no such field; ``{setting}`gamma` `` adds its
default in both variants (CIFAR-10, paper scale). The directives ``config-fields``, ``config-presets`` and
``config-variants`` make tables.
"""

import dataclasses
import inspect

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective, SphinxRole

from sastc.config import EVERY, GROUPS, RunConfig, allowed_values
from sastc.labels import shown
from sastc.methods import REGISTRY

HEAD = "| field | default | allowed | meaning |"
SOURCE = inspect.getfile(RunConfig)  # pages are read again when it changes
CIFAR10 = dict(dataset="cifar10", scale="paper")
PRESETS = {  # the paper's first: a narrow screen shows two
    "paper, CIFAR-10": CIFAR10,
    "paper, CIFAR-10, released": CIFAR10 | dict(variant="released"),
    "paper, CIFAR-100": dict(scale="paper", dataset="cifar100"),
    "paper, ImageNet": dict(scale="paper", dataset="imagenet"),
    "paper, CIFAR-10, teacher": CIFAR10 | dict(method="teacher"),
    "quarter, CIFAR-10": dict(scale="quarter", dataset="cifar10"),
    "slim, CIFAR-10": dict(scale="slim", dataset="cifar10"),
    "quick, digits": dict(),
}


def anchor(name: str) -> str:
    """Where a field's row is on its page."""
    return "field-" + name.replace("_", "-")


def row(field: dataclasses.Field, target: str) -> str:
    """A field as a row of a table in Markdown."""
    methods = field.metadata["applies"] if isinstance(field.metadata["applies"], tuple) else EVERY
    only = "" if set(methods) == set(EVERY) else f" *({', '.join(methods)})*"
    default = "preset" if field.default is None else f"`{shown(field.default) or '(empty)'}`"
    allowed = allowed_values(field).replace("''", "(empty)").replace(">=", "≥").replace("<=", "≤")
    return f"| [`{field.name}`]{{#{target}}} | {default} | {allowed} | {field.metadata['doc']}{only} |"


class FieldRole(SphinxRole):
    """A link to a field's row; with `defaults` also what the two variants set."""

    def __init__(self, defaults: bool = False):
        self.defaults = defaults

    def run(self):
        """Make the nodes, or an error."""
        name = self.text
        self.env.note_dependency(SOURCE)
        if name not in RunConfig.fields():
            error = self.inliner.reporter.error(f"RunConfig has no field {name!r}", line=self.lineno)
            return [self.inliner.problematic(self.rawtext, self.rawtext, error)], [error]
        page = self.env.app.builder.get_relative_uri(self.env.docname, "config")
        link = nodes.reference("", "", nodes.literal("", name), internal=True, refuri=f"{page}#{anchor(name)}")
        if not self.defaults:
            return [link], []
        values = (getattr(RunConfig(**CIFAR10, variant=variant), name) for variant in ("paper", "released"))
        paper, released = (shown(value) or "(empty)" for value in values)
        both = [nodes.Text(" = "), nodes.literal("", paper)]
        if released != paper:
            both += [nodes.Text(" (paper), "), nodes.literal("", released), nodes.Text(" (released)")]
        return [link, *both], []


class Table(SphinxDirective):
    """A directive whose content is Markdown that the code writes; its tables have the directive's name as a class."""

    def run(self):
        """Parse the Markdown."""
        self.env.note_dependency(SOURCE)
        node = nodes.container()
        self.state.nested_parse(StringList(self.markdown(), source="RunConfig"), 0, node)
        for table in node.findall(nodes.table):
            table["classes"].append(self.name)
        return node.children


class Fields(Table):
    """All fields, in the groups and the order of the class."""

    def markdown(self) -> list[str]:
        """One table for each group of fields, and for each method with options of its own."""
        lines = []
        for group, title in GROUPS.items():
            lines += ["", f"## {title}", "", HEAD, "|:--|:--|:--|:--|"]
            own = [field for field in RunConfig.fields().values() if field.metadata["group"] == group]
            lines += [row(field, anchor(field.name)) for field in own]
        for kind in REGISTRY.values():
            if kind.options:
                lines += ["", f"## Options of {kind.label} alone", "", HEAD, "|:--|:--|:--|:--|"]
                lines += [row(field, anchor(f"{kind.name}-{name}")) for name, field in kind.options.items()]
        return lines


class Presets(Table):
    """The fields that are left open, as some scales, datasets and variants fill them."""

    def markdown(self) -> list[str]:
        """One row a field, one column a preset."""
        configs = [RunConfig(**values) for values in PRESETS.values()]
        lines = ["| field | " + " | ".join(PRESETS) + " |", "|:--" * (len(PRESETS) + 1) + "|"]
        for name, field in RunConfig.fields().items():
            if field.default is None:
                lines.append(f"| {{field}}`{name}` | " + " | ".join(shown(getattr(c, name)) for c in configs) + " |")
        return lines


class Variants(Table):
    """What the variant changes."""

    def markdown(self) -> list[str]:
        """One row for each field that differs, for SASTC or for KD."""
        lines = ["| field | paper | released |", "|:--|:--|:--|"]
        for name in RunConfig.fields():
            for method, note in (("sastc", ""), ("kd", " (methods other than SASTC)")):
                configs = (RunConfig(**CIFAR10, method=method, variant=v) for v in ("paper", "released"))
                values = [shown(getattr(config, name)) for config in configs]
                if values[0] != values[1] and name != "variant":
                    lines.append(f"| {{field}}`{name}`{note} | `{values[0]}` | `{values[1]}` |")
                    break
        return lines


def setup(app):
    """Register roles and directives."""
    app.add_role("field", FieldRole())
    app.add_role("setting", FieldRole(defaults=True))
    app.add_directive("config-fields", Fields)
    app.add_directive("config-presets", Presets)
    app.add_directive("config-variants", Variants)
    return {"parallel_read_safe": True, "version": "1"}
