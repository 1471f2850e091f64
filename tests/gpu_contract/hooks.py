"""What our trainer takes from TRL's: the methods it puts its own in place of, and what it reads."""

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from calls import our_source
from vendor import Parameters, Vendor, parameters_of

OUR_FILES = tuple(
    f"trainer/{name}.py"
    for name in ("packed_update", "rollout", "loss_mask", "grpo", "checkpoint_hooks")
)
OUR_CLASSES = (
    "SharedPrefixTrainer", "RolloutTrainer", "LossMaskTrainer", "RewardTrainer", "CheckpointHooks",
)  # fmt: skip
STOCK = (
    ("trl/trainer/grpo_trainer.py", "GRPOTrainer"),
    ("trl/trainer/base_trainer.py", "_BaseTrainer"),
    ("transformers/trainer.py", "Trainer"),
)
INHERITED = STOCK[1:]


@dataclass(frozen=True)
class Family:
    """Classes that one object is made of: those of a package, or ours."""

    classes: tuple[ast.ClassDef, ...]

    def methods(self) -> dict[str, Parameters]:
        """By name; the first class wins, as in Python."""
        found: dict[str, Parameters] = {}
        for each in self.classes:
            for node in each.body:
                if isinstance(node, ast.FunctionDef):
                    found.setdefault(node.name, parameters_of(node.args))
        return found

    def attributes(self, only_in: str = "") -> set[str]:
        """Names that the classes define or give to ``self``, in one method or in all of them."""
        names = set(self.methods())
        for each in self.classes:
            for node in each.body:
                if isinstance(node, ast.Assign) or (isinstance(node, ast.AnnAssign) and node.value):
                    names |= {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
                if not only_in or getattr(node, "name", "") == only_in:
                    names |= _on_self(node, ast.Store)
        return names

    def asks_for(self) -> set[str]:
        """Names that are declared without a value, read from ``self``, or written outside init."""
        declared = {
            node.target.id
            for each in self.classes
            for node in each.body
            if isinstance(node, ast.AnnAssign) and node.value is None
            if isinstance(node.target, ast.Name)
        }
        return declared | {name for node in self._walk() for name in _attribute(node, "self")}

    def asks_super_for(self) -> set[str]:
        """Names of methods that are called as ``super().name``."""
        return {name for node in self._walk() for name in _attribute(node, "super()")}

    def keywords_of_calls(self, name: str) -> set[str]:
        """Keywords with which the classes call a method of theirs."""
        return {
            keyword.arg or "**"
            for node in self._walk()
            if isinstance(node, ast.Call) and name in _attribute(node.func, "self")
            for keyword in node.keywords
        }

    def strings(self) -> set[str]:
        """Every text in the code: keys of a batch among them."""
        return {
            node.value
            for node in self._walk()
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }

    def batch_keys(self) -> set[str]:
        """Keys that ``batch`` and ``inputs`` are asked for."""
        return {
            node.slice.value
            for node in self._walk()
            if isinstance(node, ast.Subscript)
            and ast.unparse(node.value) in ("batch", "inputs")
            and isinstance(node.ctx, ast.Load)
            and isinstance(node.slice, ast.Constant)
            and isinstance(node.slice.value, str)
        }

    def _walk(self) -> Iterator[ast.AST]:
        for each in self.classes:
            yield from ast.walk(each)


def _attribute(node: ast.AST, owner: str) -> set[str]:
    named = isinstance(node, ast.Attribute) and ast.unparse(node.value) == owner
    return {node.attr} if named and isinstance(node, ast.Attribute) else set()


def _on_self(node: ast.AST, context: type[ast.expr_context]) -> set[str]:
    return {
        name
        for each in ast.walk(node)
        if isinstance(each, ast.Attribute) and isinstance(each.ctx, context)
        for name in _attribute(each, "self")
    }


def family(vendor: Vendor, places: Sequence[tuple[str, str]]) -> Family:
    """Classes of the packages, the derived first."""
    nodes = [vendor.find(file, name) for file, name in places]
    return Family(tuple(node for node in nodes if isinstance(node, ast.ClassDef)))


def ours(changed: str = "", to: str = "") -> Family:
    """Our classes, with a piece of their text changed."""
    texts = [our_source(file) for file in OUR_FILES]
    assert not changed or any(changed in text for text in texts)
    nodes: list[ast.AST] = []
    for text in texts:
        nodes += ast.walk(ast.parse(text.replace(changed, to) if changed else text))
    found = [node for node in nodes if isinstance(node, ast.ClassDef)]
    return Family(tuple(node for node in found if node.name in OUR_CLASSES))


CALLED_FROM_OUTSIDE = {"restore_guard"}
"""By train(), on the finished object."""


def hook_problems(own: Family, theirs: Family) -> list[str]:
    """Where our trainer and the one below it no longer fit; a sentence each."""
    found = []
    below = theirs.methods()
    used = own.asks_for()
    for name, takes in own.methods().items():
        if name in below:
            found += [f"{name}: {text}" for text in _cannot_take(name, takes, theirs)]
        elif name not in used | CALLED_FROM_OUTSIDE:
            found.append(f"{name} is called by nobody: is the hook of that name gone?")
    there = theirs.attributes()
    missing = (used - own.attributes(only_in="__init__") - there) | (own.asks_super_for() - there)
    found += [f"there is no {name} below" for name in sorted(missing)]
    return found


def _cannot_take(name: str, own: Parameters, theirs: Family) -> Iterator[str]:
    """What a caller of theirs may give and ours would refuse or take for something else."""
    if name == "__init__":
        return
    asked = theirs.methods()[name]
    for place, parameter in enumerate(asked.positional):
        if place >= len(own.positional):
            if not own.any_positional:
                yield f"does not take {parameter}"
        elif own.positional[place] in own.nameless:
            if place > 0 and theirs.keywords_of_calls(name):
                yield f"{own.positional[place]} is given by name"
        elif own.positional[place] != parameter:
            yield f"{own.positional[place]} stands where {parameter} is given"
    for parameter in asked.keyword_only:
        if parameter not in own.names and not own.any_keyword:
            yield f"does not take {parameter}"
    unknown = own.required - own.nameless - set(asked.positional)
    if unknown:
        yield f"wants {', '.join(sorted(unknown))}, which nobody gives"
