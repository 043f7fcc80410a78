"""Every option is read by some code: a flag that nothing reads looks as if it worked.

The sources are searched for attributes of expressions whose type is a class of options. The types
come from annotations of parameters and attributes, and from assignments.
"""

import ast
from collections.abc import Iterator

import pytest

from sweeps.options import SweepOptions
from synthdetect.commands.catalogue import COMMANDS
from synthdetect.config.options import Options
from synthdetect.runs.options import RegimesOptions, TrainOptions
from tests.conftest import ROOT

ALL: dict[str, type[Options]] = {
    **{name: command.options for name, command in COMMANDS.items()},
    "sweep": SweepOptions,
}

HANDED_ON: dict[type[Options], type[Options]] = {RegimesOptions: TrainOptions}
"""Classes whose options are handed on by name to another class."""

Types = set[type[Options]]
Environment = dict[str, Types]


def subclasses(options: type[Options]) -> Iterator[type[Options]]:
    yield options
    for inner in options.__subclasses__():
        yield from subclasses(inner)


def own_fields(options: type) -> set[str]:
    return set(getattr(options, "__pydantic_fields__", {}))


def owner(options: type[Options], name: str) -> type[Options] | None:
    """The class that declares an option, which others may inherit."""
    declaring = [base for base in options.__mro__ if name in own_fields(base)]
    return declaring[-1] if declaring else None


class Reads:
    """The options that sources read, as pairs of the declaring class and the name."""

    def __init__(self, trees: list[ast.Module]) -> None:
        self.classes = {options.__name__: {options} for options in subclasses(Options)}
        self.attributes: Environment = {}
        self.functions: Environment = {}
        self.found: set[tuple[type[Options] | None, str]] = set()
        self._learn_names(trees)
        for _ in range(2):  # attributes may be used before the function that sets them
            for tree in trees:
                self._scan_tree(tree)

    def _learn_names(self, trees: list[ast.Module]) -> None:
        nodes = [node for tree in trees for node in ast.walk(tree)]
        for node in nodes:
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "TypeVar":
                bounds = [k.value for k in node.keywords if k.arg == "bound"]
                name = node.args[0]
                if isinstance(name, ast.Constant) and bounds:
                    self.classes[str(name.value)] = self._annotated(bounds[0])
        for node in nodes:
            if isinstance(node, ast.FunctionDef) and node.returns is not None:
                self.functions.setdefault(node.name, set()).update(self._annotated(node.returns))
            elif isinstance(node, ast.ClassDef) and node.name not in self.classes:
                for field in node.body:
                    if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                        types = self._annotated(field.annotation)
                        self.attributes.setdefault(field.target.id, set()).update(types)
                if "Protocol" in {ast.unparse(base) for base in node.bases}:
                    members = {part.name for part in node.body if isinstance(part, ast.FunctionDef)}
                    fitting = [o for o in subclasses(Options) if members <= own_fields(o)]
                    self.classes[node.name] = set(fitting)

    def _annotated(self, annotation: ast.expr) -> Types:
        names = {ast.unparse(n).strip("'\"") for n in ast.walk(annotation)}
        return {options for name in names for options in self.classes.get(name, ())}

    def _scan_tree(self, tree: ast.Module) -> None:
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and node.name in self.classes:
                for method in node.body:
                    # A validator's reading has no effect beyond a refusal.
                    if isinstance(method, ast.FunctionDef) and not any(
                        "validator" in ast.unparse(d) for d in method.decorator_list
                    ):
                        self._scan(method, {"self": self.classes[node.name]})
            elif isinstance(node, (ast.FunctionDef, ast.Lambda)):
                self._scan(node, {})

    def _scan(self, function: ast.AST, known: Environment) -> None:
        environment = {**self.classes, **known}
        for node in ast.walk(function):
            if isinstance(node, ast.arg) and node.annotation is not None:
                self._add(environment, node.arg, self._annotated(node.annotation))
        for node in ast.walk(function):
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    self._assign(target, node.value, environment)
        for node in ast.walk(function):
            if isinstance(node, ast.Attribute):
                for options in self._type(node.value, environment):
                    self.found.add((owner(options, node.attr), node.attr))

    def _assign(self, target: ast.expr, value: ast.expr, environment: Environment) -> None:
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
            for one, other in zip(target.elts, value.elts, strict=False):
                self._assign(one, other, environment)
        elif isinstance(target, ast.Name):
            self._add(environment, target.id, self._type(value, environment))
        elif isinstance(target, ast.Attribute):
            self._add(self.attributes, target.attr, self._type(value, environment))

    def _type(self, value: ast.expr, environment: Environment) -> Types:
        if isinstance(value, ast.Name):
            return environment.get(value.id, set())
        if isinstance(value, ast.Attribute):
            holders = self._type(value.value, environment)
            if not holders:
                return self.attributes.get(value.attr, set())
            sections = [options.nested_sections() for options in holders]
            return {inside[value.attr] for inside in sections if value.attr in inside}
        if isinstance(value, (ast.BoolOp, ast.IfExp)):
            parts = value.values if isinstance(value, ast.BoolOp) else [value.body, value.orelse]
            return {options for part in parts for options in self._type(part, environment)}
        if isinstance(value, ast.Call) and isinstance(value.func, ast.Name):
            return self.functions.get(value.func.id, set())
        if isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute):
            if value.func.attr in ("replace", "resolve"):
                return self._type(value.func.value, environment)
            return self.functions.get(value.func.attr, set())
        return set()

    @staticmethod
    def _add(environment: Environment, name: str, types: Types) -> None:
        if types:
            environment[name] = environment.get(name, set()) | types

    def unread(self, options: type[Options]) -> set[str]:
        """The options of a class that nothing reads."""
        inside, missing = options.nested_sections(), set()
        for name, place in options.places().items():
            declaring = owner(inside[place] if place else options, name)
            if (declaring, name) not in self.found:
                missing.add(name)
        if options in HANDED_ON:
            other = HANDED_ON[options]
            missing -= set(other.fields()) - self.unread(other)
        return missing


@pytest.fixture(scope="module")
def reads() -> Reads:
    files = [file for p in ("synthdetect", "sweeps") for file in (ROOT / p).rglob("*.py")]
    return Reads([ast.parse(file.read_text()) for file in files])


@pytest.mark.parametrize("command", ALL)
def test_every_option_is_read_by_some_code(reads: Reads, command: str) -> None:
    assert reads.unread(ALL[command]) == set()


def test_an_option_that_nothing_reads_is_found() -> None:
    text = """
def train(options: TrainOptions) -> None:
    optim, image = options.optim, options.image
    print(optim.lr, options.recipe, options.run.output)
    changed = options.replace(lr=3)
    print(changed.loss.loss)
    print(image.lr, options.folds.folds)
"""
    read = set(TrainOptions.fields()) - Reads([ast.parse(text)]).unread(TrainOptions)
    assert read == {"lr", "recipe", "output", "loss"}
