"""What is wrong with lists of topic seeds: everything at once, where loading stops at the first error.

The checks of lines and titles are here; :mod:`topics.similarity` adds those that need embeddings and
:mod:`topics.overlap` the comparison with benchmarks. A user's own list is held to all of them but the plan.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from primer.errors import PrimerError
from topics.allocation import Allocation
from topics.seeds import BUILT_IN, LEVELS, Topic, parse_seed, seed_files, seed_lines
from topics.titles import masked_titles, subject_words, title_problems

# So many titles of a subfield that differ in one word alone were made from a template.
_TEMPLATE_ROWS = 4


@dataclass(frozen=True)
class Finding:
    """One thing to mend: where (file and line) and what."""

    where: str
    problem: str

    @classmethod
    def of_error(cls, where: str, error: PrimerError) -> Finding:
        """What an error says, without the place where it begins with that."""
        return cls(where, f"{error.problem.removeprefix(where).lstrip(':, ')} {error.remedy}")


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: What should be so.
        result: What is so, in figures.
        passed: Whether that is good enough.
        findings: What to mend; a passed check may have some.
    """

    name: str
    result: str
    passed: bool
    findings: list[Finding] = field(default_factory=list)


@dataclass(frozen=True)
class Listed:
    """A seed and where it stands."""

    where: str
    topic: Topic


def read_all(lists: Sequence[str] = (BUILT_IN,)) -> tuple[list[Listed], Check]:
    """Every seed of some lists that can be read, and the check that all can be.

    Raises:
        PrimerError: If a list is not there.
    """
    listed: list[Listed] = []
    findings: list[Finding] = []
    for path in seed_files(lists).values():
        try:
            lines = seed_lines(path)
        except PrimerError as error:
            findings.append(Finding(str(path), f"{error.problem} {error.remedy}"))
            continue
        if not lines:
            findings.append(Finding(str(path), "holds no seeds; add some, or delete the file"))
        for number, line in enumerate(lines, start=2):
            where = f"{path}, line {number}"
            try:
                listed.append(Listed(where, parse_seed(line, path.stem, where)))
            except PrimerError as error:
                findings.append(Finding.of_error(where, error))
    return listed, _check("every line is a seed", f"{len(listed):,d} seeds", findings)


def check_lines(listed: Sequence[Listed]) -> list[Check]:
    """Titles and levels, each seed by itself."""
    titles = [Finding(at.where, problem) for at in listed for problem in title_problems(at.topic.title)]
    levels = [Finding(at.where, problem) for at in listed for problem in _level_problems(at.topic.levels)]
    return [
        _check("titles are 3 to 16 words in sentence case", f"{len(listed):,d} titles", titles),
        _check("levels have no gap", f"{len(listed):,d} seeds", levels),
    ]


def check_subfields(listed: Sequence[Listed]) -> Check:
    """The seeds of a subfield stand together, so that a person sees them side by side."""
    finished: set[tuple[str, str]] = set()
    current = ("", "")
    findings: list[Finding] = []
    for at in listed:
        group = (at.topic.field, at.topic.subfield)
        if group != current:
            if group in finished:
                problem = f"the subfield {at.topic.subfield!r} began further up; keep its seeds together"
                findings.append(Finding(at.where, problem))
            finished.add(group)
            current = group
    return _check("a subfield's seeds stand together", f"{len(finished):,d} subfields", findings)


def check_titles(listed: Sequence[Listed]) -> list[Check]:
    """No title twice, and no titles made from a template."""
    seen: dict[frozenset[str], str] = {}
    same = [
        Finding(at.where, f"the title {at.topic.title!r} says the same as {first}")
        for at in listed
        if (first := seen.setdefault(subject_words(at.topic.title), at.where)) != at.where
    ]
    masked: dict[tuple[str, ...], list[Listed]] = defaultdict(list)
    for at in listed:
        for mask in masked_titles(at.topic.title):
            masked[(at.topic.field, *mask)].append(at)
    templates = [
        Finding(at.where, f"{len(group)} titles of the field differ in one word alone, as {mask_text(mask)!r}")
        for mask, group in masked.items()
        for at in group[_TEMPLATE_ROWS - 1 :]
    ]
    count = f"{len(seen):,d} different titles"
    return [
        _check("no two titles say the same, whatever the case, order and small words", count, same),
        _check("no titles come from a template", count, templates),
    ]


def check_ids(listed: Sequence[Listed]) -> Check:
    """No id twice."""
    places: dict[str, str] = {}
    findings = [
        Finding(at.where, f"the id {at.topic.id} is already used in {first}")
        for at in listed
        if (first := places.setdefault(at.topic.id, at.where)) != at.where
    ]
    return _check("ids are used once", f"{len(places):,d} ids", findings)


def check_retired(listed: Sequence[Listed], retired: Mapping[str, str]) -> Check:
    """No retired id is used again, and every number that a field has lost is that of a retired id."""
    places = {at.topic.id: at.where for at in listed}
    findings = [
        Finding(places[identity], f"the id {identity} is retired; give the seed a new number")
        for identity in retired
        if identity in places
    ]
    numbers: dict[str, set[int]] = defaultdict(set)
    for identity in [*places, *retired]:
        name, number = identity.rsplit("-", 1)
        numbers[name].add(int(number))
    for name, present in numbers.items():
        gaps = sorted(set(range(1, max(present) + 1)) - present)
        if gaps:
            missing = ", ".join(f"{name}-{number:04d}" for number in gaps[:5])
            problem = f"{len(gaps)} ids are gone ({missing}): list them in retired.tsv, so that none is used again"
            findings.append(Finding(name, problem))
    return _check("ids that are gone are retired, and not used again", f"{len(retired):,d} retired", findings)


def check_plan(listed: Sequence[Listed], plan: Allocation) -> list[Check]:
    """Whether the list follows its plan (`allocation.yaml`)."""
    total = len(listed)
    fields = Counter(at.topic.field for at in listed)
    planned = plan.fields()
    undeclared = [
        Finding(at.where, f"the subfield {at.topic.subfield!r} of {at.topic.field} is not in the plan")
        for at in listed
        if at.topic.field not in planned or at.topic.subfield not in planned[at.topic.field].subfields
    ]
    present = {(at.topic.field, at.topic.subfield) for at in listed}
    empty = [
        Finding(name, f"the subfield {subfield!r} has no seed")
        for name, field_plan in planned.items()
        for subfield in field_plan.subfields
        if (name, subfield) not in present
    ]
    short = [
        Finding(name, f"{fields[name]} seeds, {field_plan.seeds} planned")
        for name, field_plan in planned.items()
        if fields[name] < field_plan.seeds
    ]
    largest, most = max(fields.items(), key=lambda item: item[1])
    common = sum(fields[name] for group in plan.groups.values() if group.common_sense for name in group.fields)
    return [
        _at_least("seeds in all", total, plan.least_seeds),
        _at_least("fields", len(fields), plan.least_fields),
        _at_least("subfields", len(present), plan.least_subfields),
        Check(
            f"no field has more than {plan.largest_field:.0%} of the seeds",
            f"the largest, {largest}, has {most / total:.1%}",
            most <= plan.largest_field * total,
        ),
        Check(
            f"everyday, physical and social life have at least {plan.least_common_sense:.0%}",
            f"{common / total:.1%}",
            common >= plan.least_common_sense * total,
        ),
        _check("every subfield is planned, and has seeds", f"{len(present):,d} subfields", undeclared + empty),
        _check(
            "every field has the seeds planned for it", f"{sum(p.seeds for p in planned.values()):,d} planned", short
        ),
    ]


def mask_text(mask: Iterable[str]) -> str:
    """A template as people read it, with a gap for the word that differs; the field that leads it is left out."""
    return " ".join(list(mask)[1:])


def _check(name: str, result: str, findings: list[Finding]) -> Check:
    return Check(name, result, not findings, findings)


def _at_least(what: str, count: int, least: int) -> Check:
    return Check(f"at least {least:,d} {what}", f"{count:,d}", count >= least)


def _level_problems(levels: tuple[str, ...]) -> Iterator[str]:
    first, last = LEVELS.index(levels[0]), LEVELS.index(levels[-1])
    missing = [level for level in LEVELS[first : last + 1] if level not in levels]
    if missing:
        yield f"the levels {','.join(levels)} have a gap: {', '.join(missing)}"
