"""The prompt stream: unit number i as a pure function of the recipe, the seeds, the forms, the passages and i.

No unit depends on an earlier one, so that a stream can be divided over machines, resumed and sampled anywhere. A unit
is one prompt, or the few prompts of a form in several steps. Units 0 to n-1 (n topics) make the first epoch, in which
every topic comes once, or as often as the recipe's weights say, in an order of the epoch's own
(:mod:`topics.sampling`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from primer.errors import PrimerError, did_you_mean
from primer.fingerprint import file_hash
from primer.recipe import Prompts, Recipe
from prompts.draw import Shares, draws
from prompts.forms import FORMS_FOLDER, Form, form_files, load_forms
from prompts.passages import Passages, Snippet
from prompts.tables import PROMPTS_FOLDER, Tables, load_tables, pick_two, table_files
from prompts.unit import Unit
from prompts.wording import Wording
from topics.sampling import TopicDraws
from topics.seeds import LEVELS, Topic, choose_fields, field_names, load_topics

# Raise it when the code draws or words prompts differently: corpora of the earlier way are then made again.
_DRAWING = "3"


class PromptStream:
    """Every unit of a recipe, by its number.

    Weights of forms and audiences hold among those that suit a topic; a topic that none suits is left out.
    When a topic comes again it gets another form, unless only one suits it. The share of passages holds
    among the forms that take one (`snippets` in their front matter).

    Args:
        recipe: Its seed, `topics`, `prompts` and `synth.sampling.max_tokens` count; nothing else does.
        snippets: Passages, from `prompts.snippets.cut_snippets`. Their order counts.
        barred: Ids of passages that must not be used, with the reason (`prompts.screening.barred_passages`).
        forms: Forms to choose among; None means those in the recipe's folders.

    Attributes:
        topics: The topics in use, in the order of their files.
        forms: The forms in use, by name.
        barred: As given.
        left_out: How many topics no form or audience of the recipe suits, or the recipe's weights make 0.

    Raises:
        PrimerError: If the recipe names an unknown field, form, audience or the like, if its weights leave nothing
            to choose, or if it wants passages and there are none.
    """

    def __init__(
        self,
        recipe: Recipe,
        snippets: Sequence[Snippet],
        barred: Mapping[str, str] = MappingProxyType({}),
        forms: Mapping[str, Form] | None = None,
    ) -> None:
        settings, self._tables = recipe.prompts, load_tables()
        styles = self._tables.styles
        every_form = forms or load_forms(form_folders(settings), known_fields(recipe))
        form_weights = _weighted("forms", settings.forms, list(every_form))
        audiences = _weighted("audiences", settings.audiences, list(self._tables.audiences))
        self.forms = {name: every_form[name] for name in form_weights}
        self._lengths = _Axis(_weighted("lengths", settings.lengths, list(styles.lengths)))
        self._registers = _Axis(_weighted("registers", settings.registers, list(styles.registers)))
        self._languages = _Axis(_weighted("languages", settings.languages, list(styles.languages)))
        self._seed, self._wording = recipe.seed, Wording(self._tables, recipe.synth.sampling.max_tokens)
        self._snippet_share, self._words_share = settings.snippet_share, settings.required_words
        self._passages, self.barred = _passages(settings, snippets, barred), barred
        level_weights = {level: recipe.topics.weights.levels.get(level, 1.0) for level in LEVELS}
        chooser = _Chooser(self._tables, self.forms, form_weights, audiences, level_weights)
        every = load_topics(recipe.topics.fields, recipe.topics.lists)
        choices = {topic.id: found for topic in every if (found := chooser.choices(topic)) is not None}
        if not choices:
            raise PrimerError(
                f"None of the {len(every)} topics goes with the recipe's forms ({', '.join(form_weights)}) and "
                f"audiences ({', '.join(audiences)}).",
                "Take more fields (topics.fields), forms (prompts.forms) or audiences (prompts.audiences).",
            )
        suited = [topic for topic in every if topic.id in choices]
        self._draws = TopicDraws(suited, recipe.topics.weights, recipe.seed)
        self.topics = self._draws.topics
        self.left_out = len(every) - len(self.topics)
        self._choices = [choices[topic.id] for topic in self.topics]

    def __getitem__(self, index: int) -> Unit:
        if index < 0:
            raise IndexError(f"prompts are numbered from 0, not {index}")
        place, turn = self._draws.place(index)
        topic, choices = self.topics[place], self._choices[place]
        start = draws("form", self._seed, topic.id)[0]
        form = choices.forms[choices.form_shares.pick_unlike_last(start, turn)]
        to_audience, to_level, to_share, to_snippet, to_names, to_seed, to_words, _ = draws("prompt", self._seed, index)
        to_length, to_register, to_language, noun, verb, adjective, to_verb, _ = draws("style", self._seed, index)
        audience = choices.audiences[choices.audience_shares.pick(to_audience)]
        levels, level_shares = choices.levels[audience]
        snippet = None
        if self._passages is not None and form.about.snippets and to_share < self._snippet_share * 2**64:
            snippet = self._passages.pick(topic, to_snippet)
        name, other_name = pick_two(self._tables.names, to_names)
        words = self._tables.words
        return Unit(
            index=index,
            topic=topic,
            form=form.name,
            audience=audience,
            level=levels[level_shares.pick(to_level)],
            length=self._lengths.pick(to_length),
            register=self._registers.pick(to_register),
            language=self._languages.pick(to_language),
            required_words=(_pick(words.nouns, noun), _pick(words.verbs, verb), _pick(words.adjectives, adjective))
            if to_words < self._words_share * 2**64
            else (),
            snippet=snippet,
            seed=to_seed >> 33,
            _form=form,
            _names={"name": name, "other_name": other_name, "function_verb": _pick(words.function_verbs, to_verb)},
            _wording=self._wording,
        )


def form_folders(settings: Prompts) -> list[Path]:
    """Where a recipe's forms lie: Primer's own folder, then the recipe's."""
    return [FORMS_FOLDER, *(Path(name).expanduser() for name in settings.folders)]


def known_fields(recipe: Recipe) -> list[str]:
    """Fields that a form may name: those of Primer's own topics and of the recipe's lists."""
    return sorted({*field_names(), *field_names(recipe.topics.lists)})


def material(recipe: Recipe) -> dict[str, str]:
    """Hashes of everything on disk that prompts are made from, for `primer.run.Stage.material`.

    Raises:
        PrimerError: If a list, a field or a folder that the recipe names is not there.
    """
    fields = choose_fields(recipe.topics.fields, recipe.topics.lists)
    seeds = {f"topics/{name}": file_hash(path) for name, path in fields.items()}
    tables = {f"prompts/{path.relative_to(PROMPTS_FOLDER)}": file_hash(path) for path in table_files()}
    # By name, as they are loaded: of two with one name the later counts.
    forms = {f"prompts/forms/{p.name}": file_hash(p) for f in form_folders(recipe.prompts) for p in form_files(f)}
    return {"prompts/drawing": _DRAWING, **tables, **forms, **seeds}


class _Axis:
    """A choice among names by weight."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        self._names, self._shares = list(weights), Shares(list(weights.values()))

    def pick(self, draw: int) -> str:
        return self._names[self._shares.pick(draw)]


def _pick(words: list[str], draw: int) -> str:
    return words[draw % len(words)]


def _passages(settings: Prompts, snippets: Sequence[Snippet], barred: Mapping[str, str]) -> Passages | None:
    if settings.snippet_share == 0:
        return None
    if all(snippet.id in barred for snippet in snippets):
        problem = "there is no passage of web text to use"
        if snippets:
            reasons = ", ".join(sorted(set(barred.values())))
            problem = f"none of the {len(snippets)} passages of web text may be used ({reasons})"
        raise PrimerError(
            f"prompts.snippet_share is {settings.snippet_share:g}, but {problem}.",
            "Set prompts.snippet_share to 0, or take more text (web.characters).",
        )
    return Passages(snippets, settings.snippet_choice, barred)


def _weighted(table: str, weights: Mapping[str, float], known: list[str]) -> dict[str, float]:
    """The items in use and their weights: those with a weight above 0, or if there are none, all that are not named."""
    for name in weights:
        if name not in known:
            raise PrimerError(
                f"prompts.{table}: there is no {name!r}.", f"{did_you_mean(name, known)}There are: {', '.join(known)}."
            )
    used = {name: weights[name] for name in known if weights.get(name, 0.0) > 0}
    used = used or {name: 1.0 for name in known if name not in weights}
    if not used:
        raise PrimerError(f"prompts.{table}: every weight is 0.", "Give at least one of them a weight above 0.")
    return used


@dataclass(frozen=True)
class _Choices:
    """What the topics of one kind, field and set of levels can be combined with."""

    forms: list[Form]
    form_shares: Shares
    audiences: list[str]
    audience_shares: Shares
    levels: dict[str, tuple[list[str], Shares]]  # by audience: those that it shares with the topic


class _Chooser:
    """Finds `_Choices`: once for each combination of kind, field and levels, not for each topic."""

    def __init__(
        self,
        tables: Tables,
        known: Mapping[str, Form],
        forms: Mapping[str, float],
        audiences: Mapping[str, float],
        levels: Mapping[str, float],
    ) -> None:
        self._tables, self._known = tables, known
        self._forms, self._audiences, self._levels = forms, audiences, levels
        self._found: dict[tuple[str, str, tuple[str, ...]], _Choices | None] = {}

    def choices(self, topic: Topic) -> _Choices | None:
        """What a topic can be combined with, or None if no form or no audience suits it."""
        key = (topic.kind, topic.field, topic.levels)
        if key not in self._found:
            self._found[key] = self._find(topic)
        return self._found[key]

    def _find(self, topic: Topic) -> _Choices | None:
        forms = [name for name in self._forms if self._known[name].suits(topic)]
        levels = {name: self._shared_levels(topic, name) for name in self._audiences}
        audiences = [name for name, shared in levels.items() if shared]
        if not forms or not audiences:
            return None
        return _Choices(
            forms=[self._known[name] for name in forms],
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
