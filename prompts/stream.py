"""The prompt stream: prompt number i as a pure function of the recipe, the seeds, the forms, the passages and i.

No prompt depends on an earlier one, so that a stream can be divided over machines, resumed and
sampled anywhere. Prompts 0 to n-1 (n topics) make the first epoch, in which every topic comes once, or as often as
the recipe's weights say, in an order of the epoch's own (:mod:`topics.sampling`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from primer.errors import PrimerError, did_you_mean
from primer.fingerprint import file_hash
from primer.recipe import Recipe, Topics
from prompts.draw import Shares, draws
from prompts.tables import PROMPTS_FOLDER, Form, Tables, load_tables, pick_two, table_files
from topics.sampling import TopicDraws
from topics.seeds import LEVELS, Topic, choose_fields, load_topics

# Raise it when the code draws or words prompts differently: corpora of the earlier way are then made again.
_DRAWING = "2"


@dataclass(frozen=True, slots=True)
class Snippet:
    """A passage of web text that a prompt may carry."""

    id: str
    text: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """One request to a teacher, with everything it was made from.

    Attributes:
        index: Its number in the stream.
        messages: Chat messages (`role`, `content`).
        topic: The topic seed.
        form: Name of the template.
        audience: Name of the audience.
        level: The school level the reader is at; one that both the topic and the audience have.
        snippet_id: The passage it carries, if any.
        seed: For the teacher's sampler, 31 bits.
    """

    index: int
    messages: list[dict[str, str]]
    topic: Topic
    form: str
    audience: str
    level: str
    snippet_id: str | None
    seed: int


@dataclass(frozen=True)
class _Choices:
    """What the topics of one kind, field and set of levels can be combined with."""

    forms: list[Form]
    form_shares: Shares
    audiences: list[str]
    audience_shares: Shares
    levels: dict[str, tuple[list[str], Shares]]  # by audience: those that it shares with the topic


class PromptStream:
    """Every prompt of a recipe, by its number.

    Weights of forms and audiences hold among those that suit a topic; a topic that none suits is left out.
    When a topic comes again it gets another form, unless only one suits it. The share of passages holds
    among the forms that take one (`snippets` in their front matter).

    Args:
        recipe: Its seed, `topics` and `prompts` count; nothing else does.
        snippets: Passages, from `prompts.snippets.cut_snippets`. Their order counts.

    Attributes:
        topics: The topics in use, in the order of their files.
        left_out: How many topics no form or audience of the recipe suits, or the recipe's weights make 0.

    Raises:
        PrimerError: If the recipe names an unknown field, form or audience, if its weights leave nothing to
            choose, or if it wants passages and there are none.
    """

    def __init__(self, recipe: Recipe, snippets: Sequence[Snippet]) -> None:
        settings, self._tables = recipe.prompts, load_tables()
        forms = _weighted("forms", settings.forms, list(self._tables.forms))
        audiences = _weighted("audiences", settings.audiences, list(self._tables.audiences))
        if settings.snippet_share > 0 and not snippets:
            raise PrimerError(
                f"prompts.snippet_share is {settings.snippet_share:g}, but there is no passage of web text to use.",
                "Set prompts.snippet_share to 0, or take more text (web.characters).",
            )
        self._seed, self._share, self._snippets = recipe.seed, settings.snippet_share, snippets
        self._systems: dict[tuple[str, str, int], str] = {}
        level_weights = {level: recipe.topics.weights.levels.get(level, 1.0) for level in LEVELS}
        chooser = _Chooser(self._tables, forms, audiences, level_weights)
        every = load_topics(recipe.topics.fields, recipe.topics.lists)
        choices = {topic.id: found for topic in every if (found := chooser.choices(topic)) is not None}
        if not choices:
            raise PrimerError(
                f"None of the {len(every)} topics goes with the recipe's forms ({', '.join(forms)}) and audiences "
                f"({', '.join(audiences)}).",
                "Take more fields (topics.fields), forms (prompts.forms) or audiences (prompts.audiences).",
            )
        suited = [topic for topic in every if topic.id in choices]
        self._draws = TopicDraws(suited, recipe.topics.weights, recipe.seed)
        self.topics = self._draws.topics
        self.left_out = len(every) - len(self.topics)
        self._choices = [choices[topic.id] for topic in self.topics]

    def __getitem__(self, index: int) -> Prompt:
        if index < 0:
            raise IndexError(f"prompts are numbered from 0, not {index}")
        place, turn = self._draws.place(index)
        topic, choices = self.topics[place], self._choices[place]
        start = draws("form", self._seed, topic.id)[0]
        form = choices.forms[choices.form_shares.pick_unlike_last(start, turn)]
        to_audience, to_level, to_share, to_snippet, to_names, to_seed, *_ = draws("prompt", self._seed, index)
        audience = choices.audiences[choices.audience_shares.pick(to_audience)]
        levels, level_shares = choices.levels[audience]
        level = levels[level_shares.pick(to_level)]
        snippet = None
        if form.about.snippets and to_share < self._share * 2**64:
            snippet = self._snippets[to_snippet % len(self._snippets)]
        name, other_name = pick_two(self._tables.names, to_names)
        text = form.template.render(
            {
                "title": topic.title,
                "subject": topic.field.replace("-", " "),
                "name": name,
                "other_name": other_name,
                "passage": snippet.text if snippet else "",
            }
        )
        return Prompt(
            index=index,
            messages=[
                {"role": "system", "content": self._system(audience, level, form.about.words)},
                {"role": "user", "content": text.strip()},
            ],
            topic=topic,
            form=form.name,
            audience=audience,
            level=level,
            snippet_id=snippet.id if snippet else None,
            seed=to_seed >> 33,
        )

    def _system(self, audience: str, level: str, words: int) -> str:
        """The instructions that all forms share; there are so few different ones that each is rendered once."""
        key = (audience, level, words)
        if key not in self._systems:
            about = {"reader": self._tables.levels[level], "writing": self._tables.audiences[audience].writing}
            self._systems[key] = self._tables.system.render(about, words=words).strip()
        return self._systems[key]


def material(topics: Topics) -> dict[str, str]:
    """Hashes of everything on disk that prompts are made from, for `primer.run.Stage.material`.

    Args:
        topics: The recipe's.

    Raises:
        PrimerError: If a list or a field that they name is not there.
    """
    seeds = {f"topics/{name}": file_hash(path) for name, path in choose_fields(topics.fields, topics.lists).items()}
    tables = {f"prompts/{path.relative_to(PROMPTS_FOLDER)}": file_hash(path) for path in table_files()}
    return {"prompts/drawing": _DRAWING, **tables, **seeds}


def _weighted(table: str, weights: Mapping[str, float], known: list[str]) -> dict[str, float]:
    """The items in use and their weights; an empty table means all of them, equally."""
    for name in weights:
        if name not in known:
            raise PrimerError(
                f"prompts.{table}: there is no {name!r}.", f"{did_you_mean(name, known)}There are: {', '.join(known)}."
            )
    if not weights:
        return dict.fromkeys(known, 1.0)
    used = {name: weights[name] for name in known if weights.get(name, 0.0) > 0}
    if not used:
        raise PrimerError(f"prompts.{table}: every weight is 0.", "Give at least one of them a weight above 0.")
    return used


class _Chooser:
    """Finds `_Choices`: once for each combination of kind, field and levels, not for each topic."""

    def __init__(
        self,
        tables: Tables,
        forms: Mapping[str, float],
        audiences: Mapping[str, float],
        levels: Mapping[str, float],
    ) -> None:
        self._tables, self._forms, self._audiences, self._levels = tables, forms, audiences, levels
        self._found: dict[tuple[str, str, tuple[str, ...]], _Choices | None] = {}

    def choices(self, topic: Topic) -> _Choices | None:
        """What a topic can be combined with, or None if no form or no audience suits it."""
        key = (topic.kind, topic.field, topic.levels)
        if key not in self._found:
            self._found[key] = self._find(topic)
        return self._found[key]

    def _find(self, topic: Topic) -> _Choices | None:
        forms = [name for name in self._forms if self._tables.forms[name].suits(topic)]
        levels = {name: self._shared_levels(topic, name) for name in self._audiences}
        audiences = [name for name, shared in levels.items() if shared]
        if not forms or not audiences:
            return None
        return _Choices(
            forms=[self._tables.forms[name] for name in forms],
            form_shares=Shares([self._forms[name] for name in forms]),
            audiences=audiences,
            audience_shares=Shares([self._audiences[name] for name in audiences]),
            levels={
                name: (levels[name], Shares([self._levels[level] for level in levels[name]])) for name in audiences
            },
        )

    def _shared_levels(self, topic: Topic, audience: str) -> list[str]:
        readers = self._tables.audiences[audience].levels
        return [level for level in topic.levels if level in readers and self._levels[level] > 0]
