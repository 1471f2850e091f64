"""Packages: required, installed and conflicting versions."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import distributions

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

OURSELVES = "remote-trainer"
BASE = "base"
"""Name for the requirements without an extra."""


@dataclass(frozen=True)
class Distribution:
    """One installed package: its version and the requirements in its metadata."""

    version: str
    requires: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()
    python: str = ""
    """The versions of Python it supports."""


Installed = Mapping[str, Distribution]
"""Canonical name (PEP 503) -> installed package."""


@dataclass(frozen=True)
class Package:
    """One package that an extra of this project requires on this system."""

    name: str
    extra: str
    wanted: str
    """Version specifier (PEP 440); empty: any."""
    version: str | None
    """None: not installed."""

    @property
    def fits(self) -> bool:
        return self.version is not None and allows(self.wanted, self.version)


@dataclass(frozen=True)
class Conflict:
    """A package whose version other installed packages do not accept."""

    name: str
    version: str | None
    """None: not installed."""
    wanted_by: tuple[str, ...]
    """Requirements of other packages: ``unsloth 2026.10.7 wants trl<=1.15.0``."""
    required_by: tuple[str, ...]
    """The names of these packages."""
    fix_command: str
    """The pip command that installs a version which all of them accept."""


def read_installed() -> Installed:
    """Every package of this environment; of duplicates, the one that Python imports."""
    found: dict[str, Distribution] = {}
    for each in distributions():
        name = each.metadata["Name"]
        if name:
            found.setdefault(
                canonicalize_name(name),
                Distribution(
                    version=each.version,
                    requires=tuple(each.requires or ()),
                    extras=tuple(each.metadata.get_all("Provides-Extra") or ()),
                    python=each.metadata["Requires-Python"] or "",
                ),
            )
    return found


def our_packages(installed: Installed) -> list[Package]:
    """The requirements of each extra on this system; a package can be listed in several."""
    ours = installed[OURSELVES]
    base = _requirements(ours, (), ours)
    return [
        _package(name, specifiers, extra, installed)
        for extra in (BASE, *ours.extras)
        for name, specifiers in _by_name(
            base
            if extra == BASE
            else [each for each in _requirements(ours, (extra,), ours) if each not in base]
        ).items()
    ]


def used_extras(packages: Iterable[Package]) -> set[str]:
    """Extras with an installed package that their nested extras do not require."""
    names: dict[str, set[str]] = {}
    here = set()
    for package in packages:
        names.setdefault(package.extra, set()).add(package.name)
        here |= {package.name} if package.version is not None else set()
    inner = {
        extra: set().union(*(n for n in names.values() if n < own)) for extra, own in names.items()
    }
    return {extra for extra, own in names.items() if (own - inner[extra]) & here}


def _by_name(requirements: Iterable[Requirement]) -> dict[str, list[str]]:
    """The required range of each package; an extra narrows that of a nested extra."""
    found: dict[str, list[str]] = {}
    for each in requirements:
        found.setdefault(canonicalize_name(each.name), []).append(str(each.specifier))
    return found


def _package(name: str, specifiers: Iterable[str], extra: str, installed: Installed) -> Package:
    there = installed.get(name)
    return Package(name, extra, _spelled(specifiers), there.version if there else None)


def _requirements(
    one: Distribution, extras: Iterable[str], ours: Distribution | None = None
) -> list[Requirement]:
    """The requirements of a package with these extras; our extras may include others."""
    found: list[Requirement] = []
    for line in one.requires:
        requirement = Requirement(line)
        marker = requirement.marker
        if marker and not any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            continue
        if ours and canonicalize_name(requirement.name) == OURSELVES:
            found += [each for each in _requirements(ours, requirement.extras) if each not in found]
        elif requirement not in found:
            found.append(requirement)
    return found


def reach_of(installed: Installed, extras: Iterable[str]) -> dict[str, set[str]]:
    """Installed direct and indirect requirements of these extras, each with its extras."""
    ours = installed[OURSELVES]
    reached: dict[str, set[str]] = {}
    waiting = _requirements(ours, [extra for extra in extras if extra != BASE], ours)
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        seen = reached.get(name)
        if name not in installed or (seen is not None and requirement.extras <= seen):
            continue
        reached[name] = (seen or set()) | requirement.extras
        waiting += _requirements(installed[name], reached[name])
    return reached


def conflicts(installed: Installed) -> list[Conflict]:
    """Every direct or indirect requirement that is missing or conflicts with another package."""
    asked: dict[str, list[tuple[str, Requirement]]] = {}
    for asker, extras in reach_of(installed, installed[OURSELVES].extras).items():
        for requirement in _requirements(installed[asker], extras):
            asked.setdefault(canonicalize_name(requirement.name), []).append((asker, requirement))
    return [
        _conflict(name, there, requirements, installed)
        for name, requirements in sorted(asked.items())
        if not _all_content(
            (there := installed.get(name)), [requirement for _, requirement in requirements]
        )
    ]


def _all_content(there: Distribution | None, requirements: Sequence[Requirement]) -> bool:
    return there is not None and all(allows(str(w.specifier), there.version) for w in requirements)


def _conflict(
    name: str,
    there: Distribution | None,
    requirements: Sequence[tuple[str, Requirement]],
    installed: Installed,
) -> Conflict:
    """``requirements``: (requiring package, requirement); includes our own."""
    ours = our_packages(installed)
    used = used_extras(ours)
    own = {p.wanted: p for p in ours if p.name == name and p.extra in used and p.version}
    unmet = [(a, str(w.specifier)) for a, w in requirements if not _all_content(there, [w])]
    unmet += [(OURSELVES, wanted) for wanted, package in own.items() if not package.fits]
    return Conflict(
        name=name,
        version=there.version if there else None,
        wanted_by=tuple(
            f"{asker} {installed[asker].version} wants {name}{_spelled([wanted])}"
            for asker, wanted in unmet
        ),
        required_by=tuple(asker for asker, _ in unmet),
        fix_command=pip_install(
            name, *(str(requirement.specifier) for _, requirement in requirements), *own
        ),
    )


def pip_install(name: str, *specifiers: str) -> str:
    """The command that installs a version allowed by all specifiers."""
    return f"python -m pip install '{name}{_spelled(specifiers)}'"


def install_extra(extra: str) -> str:
    """The command that completes an extra of this project."""
    return f"python -m pip install '{OURSELVES}{'' if extra == BASE else f'[{extra}]'}'"


def allows(specifier: str, version: str) -> bool:
    """Whether a version is in a range; pre-releases and local builds count like others."""
    return SpecifierSet(specifier).contains(version, prereleases=True)


def _spelled(specifiers: Iterable[str]) -> str:
    """Combined ranges, lower bound first."""
    parts = {part for text in specifiers for part in SpecifierSet(text)}
    return ",".join(sorted(map(str, parts), key=lambda each: (_place(each), each)))


def _place(part: str) -> int:
    operators = (">=", ">", "~=", "==", "!=", "<=", "<")
    return next(place for place, operator in enumerate(operators) if part.startswith(operator))


@dataclass(frozen=True)
class VersionSet:
    """The installed version set, of those that the project is tested with."""

    name: str
    """pinned, newest or other."""
    file: str | None
    """The file that pins it; None: other."""
    differs: tuple[str, ...]
    """Packages that differ from the pins (other: the deciding packages)."""


VERSION_SETS: Mapping[str, Mapping[str, str]] = {
    "constraints.txt": {
        "transformers": "5.17.0",
        "trl": "1.14.2",
        "torch": "2.13.0",
        "datasets": "4.8.5",
        "huggingface-hub": "1.33.0",
    },
    "constraints-newest.txt": {
        "transformers": "5.24.0",
        "trl": "1.16.0",
        "torch": "2.15.0",
        "datasets": "5.2.0",
        "huggingface-hub": "2.4.0",
    },
}
"""The main pins of both files, which are not part of an installation. A test compares them."""
_DECISIVE = ("transformers", "trl")


def version_set(installed: Installed) -> VersionSet | None:
    """The set of the installed transformers and TRL; None if neither is installed."""
    here = {n: Version(each.version).public for n, each in installed.items() if n in _IN_SETS}
    if not any(name in here for name in _DECISIVE):
        return None
    for file, pins in VERSION_SETS.items():
        if all(here.get(name) == pins[name] for name in _DECISIVE):
            name = "newest" if "newest" in file else "pinned"
            differs = [n for n, pin in pins.items() if here.get(n) != pin]
            return VersionSet(
                name, file, tuple(f"{n} {here.get(n, 'missing')} (not {pins[n]})" for n in differs)
            )
    return VersionSet("other", None, tuple(f"{n} {here.get(n, 'missing')}" for n in _DECISIVE))


_IN_SETS = {name for pins in VERSION_SETS.values() for name in pins}
