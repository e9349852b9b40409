"""The answer in words: what differs beyond noise and by how much, what does not, and what cannot be known.

Only differences whose Holm-adjusted p-value is below 0.05 are called differences; of all others it is said that they
are within noise, and how large one would have had to be. A difference between models that all guess is said to be one.
Nothing here is markup: names and titles are foreign text until a page escapes them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from eval.comparison import LARGEST, LEVEL, Accuracy, Comparison, Difference, Measure
from eval.statistics import CONFIDENCE, FEW_CLUSTERS

# More differences than this on one measure are counted, not named one by one.
_MOST_NAMED = 6


@dataclass(frozen=True)
class Training:
    """What the verdict needs to know of one model's training.

    Attributes:
        tokens: Training tokens, or None if its manifest does not say.
        epochs: How many times each source was seen.
    """

    tokens: int | None
    epochs: Mapping[str, float]


@dataclass(frozen=True)
class Verdict:
    """The report's answer.

    Attributes:
        headline: One sentence.
        beyond_noise: One sentence for each measure in which variants differ.
        within_noise: What does not differ, in one or two sentences.
        chance: Whether the models answer better than guessing.
        caveats: What the reader must know before believing any of it.
    """

    headline: str
    beyond_noise: tuple[str, ...]
    within_noise: tuple[str, ...]
    chance: str
    caveats: tuple[str, ...]


def give_verdict(comparison: Comparison, training: Mapping[str, Training]) -> Verdict:
    """Put a comparison into words."""
    return Verdict(
        headline=_headline(comparison),
        beyond_noise=tuple(_findings(comparison)),
        within_noise=tuple(_within_noise(comparison)),
        chance=_chance(comparison),
        caveats=(
            *_budget(comparison.variants, training),
            *_repetition(comparison.variants, training),
            *_suspicions(comparison),
            *comparison.not_shared,
            *_noise(comparison),
            *_unseen(comparison),
        ),
    )


def p_words(p: float) -> str:
    """A p-value as people write it."""
    words = "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"
    return words.replace(" ", "\u00a0")


def quoted(name: str) -> str:
    """A variant's name in running text: names such as `web` are ordinary words."""
    return f"“{name}”"


def figure(value: float, decimals: int) -> str:
    """A number with a true minus sign, which 0 has not."""
    return f"{value:z.{decimals}f}".replace("-", "−")


def join(parts: Sequence[str], last: str = "and") -> str:
    """`a`, `a and b`, `a, b and c`."""
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} {last} {parts[-1]}"


def _headline(c: Comparison) -> str:
    asked = [*c.suites, *c.means]
    anyone = any(s.above_chance for a in asked for s in a.scores.values())
    if len(c.variants) == 1:
        if not asked:
            return f"There is one variant, {quoted(c.variants[0])}, and so nothing to compare."
        level = "answers some questions better than chance" if anyone else "does not answer better than chance"
        return f"There is one variant, {quoted(c.variants[0])}, and so nothing to compare; it {level}."
    text = any(d.beyond_noise for d in c.differences if d.measure == "bits_per_byte")
    ending = " They do differ in which held-out text they predict well." if text else ""
    for mean in reversed(c.means):  # benchmarks before the built-in suites
        wins = c.beyond_noise("mean_accuracy", mean.name)
        if wins:
            return f"On the {_lower(mean.title)}, {_advantages(wins, _short_points)}.{_guessing(mean, wins)}"
    if not asked:
        alike = "asked of two models alike" if any("(questions)" in line for line in c.not_shared) else "run"
        return f"No suite of questions was {alike}.{ending}"
    single = [f"“{a.title}”" for a in c.suites if c.beyond_noise("accuracy", a.name)]
    if not anyone and not single:
        return f"None of the variants answers questions better than chance: the suites cannot tell them apart.{ending}"
    if single:
        warning = "" if anyone else " But none of the variants is above chance there, so this is no sign of knowledge."
        where = "in that suite alone" if len(single) == 1 else "in those suites alone"
        return f"Accuracy differs beyond noise in {join(single)}, and {where}.{warning}{ending}"
    return f"The variants answer questions equally well within noise, as far as these suites can tell.{ending}"


def _findings(c: Comparison) -> list[str]:
    lines = []
    for a in (*reversed(c.means), *c.suites):
        measure: Measure = "mean_accuracy" if a.parts else "accuracy"
        wins = c.beyond_noise(measure, a.name)
        if wins:
            lines.append(f"{a.title}: {_advantages(wins, _points)}.{_guessing(a, wins)}")
    for h in c.held_out:
        wins = c.beyond_noise("bits_per_byte", h.source)
        if wins:
            lines.append(f"Held-out {h.source} text, in bits per byte (fewer are better): {_advantages(wins, _bits)}.")
    for t in c.toxicity:
        wins = c.beyond_noise("toxicity", t.name)
        if wins:
            lines.append(
                f"Telling hostile sentences from neutral ones ({t.title}), area under the curve (0.5 is chance, higher "
                f"is better): {_advantages(wins, _area)}."
            )
    return [*lines, *_fields(c)]


def _fields(c: Comparison) -> list[str]:
    """For each variant that gains over the baseline in some fields of topics: in how many, and where most."""
    if c.fields is None:
        return []
    lines = []
    for variant in c.variants:
        tested = [d for d in c.fields.differences if d.first == variant]
        gains = [d for d in tested if d.beyond_noise and d.estimate.value < 0]
        if gains:
            most = min(gains, key=lambda d: d.estimate.value)
            lines.append(
                f"On held-out textbooks, {quoted(variant)} is ahead of {quoted(c.fields.baseline)} in {len(gains)} of "
                f"{len(tested)} groups of topics, most in {most.subject}, by {_bits(most)} bits per byte."
            )
    return lines


def _advantages(wins: Sequence[Difference], amount: Callable[[Difference], str]) -> str:
    """Who is ahead of whom and by how much: `a is ahead of b by ... and of c by ...; b is ahead of c by ...`."""
    if len(wins) > _MOST_NAMED:
        most = max(wins, key=lambda d: abs(d.estimate.value))
        return (
            f"{len(wins)} pairs of variants differ, most of all {quoted(most.first)}, which is ahead of "
            f"{quoted(most.second)} by {amount(most)}"
        )
    leaders = sorted(
        {d.first for d in wins}, key=lambda v: (-sum(abs(d.estimate.value) for d in wins if d.first == v), v)
    )
    clauses = []
    for leader in leaders:
        behind = [f"of {quoted(d.second)} by {amount(d)}" for d in wins if d.first == leader]
        clauses.append(f"{quoted(leader)} is ahead {join(behind)}")
    return "; ".join(clauses)


def _short_points(d: Difference) -> str:
    return f"{figure(100 * d.estimate.value, 1)} percentage points"


def _points(d: Difference) -> str:
    e = d.estimate
    return f"{figure(100 * e.value, 1)} points ({_range(100 * e.low, 100 * e.high, 1)}; {p_words(d.p_adjusted)})"


def _bits(d: Difference) -> str:
    e = d.estimate  # of the better minus the worse: negative; people read an advantage as a positive number
    return f"{figure(-e.value, 3)} ({_range(-e.high, -e.low, 3)}; {p_words(d.p_adjusted)})"


def _area(d: Difference) -> str:
    e = d.estimate
    return f"{figure(e.value, 3)} ({_range(e.low, e.high, 3)}; {p_words(d.p_adjusted)})"


def _range(low: float, high: float, decimals: int) -> str:
    return f"{figure(low, decimals)} to {figure(high, decimals)}"


def _guessing(a: Accuracy, wins: Sequence[Difference]) -> str:
    """A warning where a winner does not itself beat guessing."""
    if not a.bar:
        return ""
    guessers = sorted({quoted(d.first) for d in wins if not a.scores[d.first].above_chance})
    if not guessers:
        return ""
    verb = "is" if len(guessers) == 1 else "are"
    return f" But {join(guessers)} {verb} not above chance there, so this is no sign of knowledge."


def _within_noise(c: Comparison) -> list[str]:
    if len(c.variants) == 1:
        return []
    lines = []
    quiet = [a for a in c.suites if not c.beyond_noise("accuracy", a.name)]
    if quiet and len(quiet) == len(c.suites):
        suites = "the only suite" if len(quiet) == 1 else f"any single suite ({len(quiet)} suites)"
        lines.append(f"No two variants differ beyond noise in {suites}.")
    elif quiet:
        lines.append(f"No two variants differ beyond noise in {join([f'“{a.title}”' for a in quiet])}.")
    for a in c.means:
        if not c.beyond_noise("mean_accuracy", a.name):
            lines.append(f"{a.title}: {_largest(c, a.name)}")
    texts = [
        h.source + (f" (independent pieces of text: only {h.clusters})" if h.clusters < FEW_CLUSTERS else "")
        for h in c.held_out
        if not c.beyond_noise("bits_per_byte", h.source)
    ]
    if texts:
        lines.append(f"The loss on held-out text does not differ beyond noise for {join(texts)}.")
    areas = [t.title for t in c.toxicity if not c.beyond_noise("toxicity", t.name)]
    if areas:
        lines.append(f"Telling hostile sentences from neutral ones ({join(areas)}): no difference beyond noise.")
    return lines


def _largest(c: Comparison, subject: str) -> str:
    found = [d.ordered() for d in c.differences if (d.measure, d.subject) == ("mean_accuracy", subject)]
    d = max(found, key=lambda x: x.estimate.value)
    e = d.estimate
    return (
        f"no difference beyond noise. The largest, {quoted(d.first)} over {quoted(d.second)}, is "
        f"{figure(100 * e.value, 1)} points with a {CONFIDENCE:.0%} interval of {_range(100 * e.low, 100 * e.high, 1)} "
        f"({p_words(d.p_adjusted)})."
    )


def _chance(c: Comparison) -> str:
    asked = [a for a in (*c.suites, *c.means) if a.bar]
    written = _written(c)
    if not asked:
        return written
    able = {v: [a.title for a in asked if v in a.scores and a.scores[v].above_chance] for v in c.variants}
    if not any(able.values()):
        return (
            "No model is above chance in any suite or mean: what is scored there says nothing about what is known."
            f"{f' {written}' if written else ''}"
        )
    parts = []
    for variant, titles in able.items():
        if titles:
            parts.append(f"{quoted(variant)} in {join([f'“{t}”' for t in titles])}")
    sentences = [f"Above chance: {'; '.join(parts)}."]
    unable = [quoted(v) for v, titles in able.items() if not titles]
    if unable:
        sentences.append(f"Nowhere above chance: {join(unable)}.")
    return " ".join([*sentences, written]).rstrip()


def _written(c: Comparison) -> str:
    """Who solves any of the tasks whose answers are written, and so cannot be guessed."""
    tasks = [a for a in c.suites if not a.bar]
    if not tasks:
        return ""
    clauses = []
    for a in tasks:
        found = {v: score.acc.value for v, score in a.scores.items() if score.acc.value > 0}
        shares = join([f"{quoted(v)} {figure(100 * value, 1)}%" for v, value in found.items()])
        clauses.append(f"in “{a.title}” {shares}" if found else f"nothing in “{a.title}”")
    if not any(score.acc.value > 0 for a in tasks for score in a.scores.values()):
        suites = "one suite" if len(tasks) == 1 else f"{len(tasks)} suites"
        return f"Of the tasks whose answers are written and cannot be guessed ({suites}), none is solved."
    return f"Of the tasks whose answers are written and cannot be guessed, the models solve {'; '.join(clauses)}."


def _budget(variants: Sequence[str], training: Mapping[str, Training]) -> list[str]:
    tokens = {v: training[v].tokens for v in variants if v in training}
    known = [t for t in tokens.values() if t is not None]
    if not known or len(variants) < 2:
        return []
    if len(known) < len(variants):
        return ["How many tokens each variant was trained on is not recorded for all of them."]
    if len(set(known)) == 1:
        return [f"Every variant was trained on the same number of tokens, {known[0]:,}."]
    listed = join([f"{quoted(v)} on {t:,}" for v, t in tokens.items() if t is not None])
    return [f"The token budgets are not the same: {listed}. The comparison is not between corpora alone."]


def _repetition(variants: Sequence[str], training: Mapping[str, Training]) -> list[str]:
    epochs = {v: training[v].epochs for v in variants if v in training and training[v].epochs}
    by_source: dict[str, dict[str, float]] = {}
    for variant, seen in epochs.items():
        for source, times in seen.items():
            if times > 0:
                by_source.setdefault(source, {})[variant] = times
    if not by_source:
        return []
    listed = "; ".join(_seen(source, times, len(epochs)) for source, times in by_source.items())
    sentence = f"How often a variant saw the whole of a source: {listed}."
    highest = [max(seen.values(), default=0.0) for seen in epochs.values()]
    spreads = [list(times.values()) for times in by_source.values()] + [highest]
    if any(max(times) > 1.05 * min(times) for times in spreads):
        sentence += (
            " The variants did not repeat their sources equally often, and that is part of what is compared: text that "
            "comes back is learned more by heart."
        )
    return [sentence]


def _seen(source: str, times: Mapping[str, float], variants: int) -> str:
    alike: dict[str, list[str]] = {}
    for variant, n in times.items():
        alike.setdefault("once" if f"{n:.3g}" == "1" else f"{n:.3g} times", []).append(quoted(variant))
    if len(times) == variants > 1 and len(alike) == 1:
        return f"{source} {next(iter(alike))} in each"
    return f"{source} {join([f'{words} in {join(names)}' for words, names in alike.items()])}"


def _suspicions(c: Comparison) -> list[str]:
    """Benchmarks that a variant does better at than another beyond what their fresh twins show."""
    titles = {gap.benchmark: gap.title for gap in c.gaps}
    wins = [d.ordered() for d in c.gap_differences if d.beyond_noise]
    return [
        f"From the fresh twin of “{titles[d.subject]}” to the benchmark itself, {quoted(d.first)} gains {_points(d)} "
        f"more than {quoted(d.second)} does: the training text of {quoted(d.first)} may hold items of that benchmark. "
        "Or skill shows more in one of the two, as where one of these models guesses."
        for d in wins
    ]


def _noise(c: Comparison) -> list[str]:
    runs = _seeds(c)
    if not c.tests:
        return [runs]
    correction = f", with Holm’s correction over all {c.tests} tests of this report" if c.tests > 1 else ""
    return [f"“Beyond noise” means {'an adjusted' if correction else 'a'} p-value below {LEVEL:g}{correction}.", runs]


def _seeds(c: Comparison) -> str:
    counts = [c.seeds.get(v, 1) for v in c.variants]
    if max(counts) == 1:
        return (
            "There is one training run of each variant. The intervals measure the noise of the evaluation items, not "
            "that of another seed: training again could move a score by more than its interval."
        )
    if len(set(counts)) == 1:
        sentence = f"Each variant was trained with {counts[0]} seeds"
    else:
        listed = join([f"{quoted(v)} {n}" for v, n in zip(c.variants, counts, strict=True)])
        sentence = f"The number of training seeds differs ({listed}; one alone is taken to vary as the others do)"
    few = " So few say little about that noise, and only large differences can be told from it." * (min(counts) < 3)
    return f"{sentence}: intervals and tests hold the noise of training as well as that of the evaluation items.{few}"


def _unseen(c: Comparison) -> list[str]:
    """How small a difference would likely have been missed, for the most inclusive measure that there is."""
    places: list[tuple[Measure, Accuracy]] = [("mean_accuracy", a) for a in reversed(c.means)]
    places += [("accuracy", a) for a in sorted(c.suites, key=lambda a: -a.rows)]
    found = {(d.measure, d.subject): d for d in c.detectable}
    for measure, a in places:
        if (measure, a.name) not in found:
            continue
        least = found[measure, a.name].corrected
        where = f"With {a.rows:,} items behind “{a.title}”" if a.rows > 1 else f"With one item behind “{a.title}”"
        if least >= LARGEST[measure]:
            return [f"{where}, no difference between two variants, however large, would be sure to be seen."]
        return [
            f"{where}, a difference below {figure(100 * least, 1)} points between two variants would likely go unseen: "
            "one of that size is found in about 80 of 100 such experiments at the level that the correction leaves, if "
            "their noise is as large as here."
        ]
    return [
        f"On held-out {h.source} text, a difference below {figure(found['bits_per_byte', h.source].corrected, 3)} bits "
        "per byte between two variants would likely go unseen."
        for h in c.held_out
        if ("bits_per_byte", h.source) in found
    ][:1]


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
