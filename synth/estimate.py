"""What a generation would take, before anything is asked: prompts, tokens, documents, dollars, disk.

Prompts are real ones of the recipe's own stream; what they would bring back is assumed (`plan` in the recipe), or
measured where the run folder holds answers. How long it takes is in :mod:`synth.estimate_speed`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING

from primer.recipe import Recipe, SourceName
from primer.recipe_synth import EndpointTeacher, Synth
from synth.estimate_measured import Measured
from synth.refine import SPARE, section

if TYPE_CHECKING:
    from prompts.stream import PromptStream
    from prompts.unit import Unit
    from prompts.wording import Wording

ASSUMED, MEASURED, SAMPLED = "assumed", "measured here", "from the sample"

# Units that are rendered to see how long prompts are: the first of the stream, which are the first to be asked.
_SAMPLE = 500

# OpenAI's Batch API takes half the price.
_BATCH_DISCOUNT = 0.5

# Bytes of a journal's record beside its text, and of a row of Parquet beside it (provenance, with the prompt, under
# zstd); and bytes of Parquet for a character of text. As the demo's corpora came out.
_RECORD_BYTES = 250
_ROW_BYTES = 350
_PARQUET_BYTES = {"synthetic": 0.5, "web": 0.45, "code": 0.3}


@dataclass(frozen=True)
class Work:
    """A generation in numbers, and where each comes from (`ASSUMED`, `MEASURED`, `SAMPLED`).

    Attributes:
        units: Units of the stream to ask.
        requests: Requests to the teacher: a book has several steps, and a retry is one more.
        documents: Units that become documents.
        tokens: The documents' tokens, in the teacher's count.
        prompt_tokens: Tokens in, of all requests.
        completion_tokens: Tokens out, of all requests.
        accepted: Share of units that become documents.
        most_steps: Steps of the longest form: they must be asked one after another.
        passages: Share of units with a passage of web text.
        origin: Where `accepted`, `request_tokens`, ... come from.
        answered: Requests that the run folder's journal has answers to already.
    """

    units: int
    requests: int
    documents: int
    tokens: int
    prompt_tokens: int
    completion_tokens: int
    accepted: float
    most_steps: int
    passages: float
    origin: dict[str, str] = field(default_factory=dict)
    answered: int = 0


@dataclass(frozen=True)
class _Unit:
    """What one unit is expected to take and bring."""

    requests: float
    prompt_tokens: float
    completion_tokens: float
    accepted: float
    document_tokens: float
    steps: int
    passage: bool


def estimate_work(recipe: Recipe, known: Measured) -> Work:
    """How much must be asked to collect what a recipe wants.

    Raises:
        PrimerError: If the recipe's topics, forms or weights cannot be used (`prompts.stream.PromptStream`).
    """
    units = _sample(recipe)
    requests, prompts = fmean(unit.requests for unit in units), fmean(unit.prompt_tokens for unit in units)
    completions, accepted = fmean(unit.completion_tokens for unit in units), fmean(unit.accepted for unit in units)
    document = sum(unit.accepted * unit.document_tokens for unit in units) / (accepted * len(units))
    origin = {"accepted": ASSUMED, "document_tokens": ASSUMED, "prompt_tokens": SAMPLED, "completion_tokens": ASSUMED}
    if known.answers is not None:
        prompts = requests * known.answers.prompt_tokens / known.answers.replies
        longer = requests * known.answers.completion_tokens / known.answers.replies / completions
        completions, document = longer * completions, longer * document
        origin |= {"prompt_tokens": MEASURED, "completion_tokens": MEASURED, "document_tokens": MEASURED}
    if known.judged is not None:
        accepted = known.judged.documents / known.judged.units
        document = known.judged.tokens / known.judged.documents
        origin |= {"accepted": MEASURED, "document_tokens": MEASURED}
    documents = _documents(recipe.synth, document)
    asked = math.ceil(documents / accepted)
    return Work(
        units=asked,
        requests=round(asked * requests),
        documents=documents,
        tokens=round(documents * document),
        prompt_tokens=round(asked * prompts),
        completion_tokens=round(asked * completions),
        accepted=accepted,
        most_steps=max(unit.steps for unit in units),
        passages=fmean(unit.passage for unit in units),
        origin=origin,
        answered=known.answers.replies if known.answers else 0,
    )


@dataclass(frozen=True)
class Cost:
    """US dollars of an endpoint; None where the recipe gives no price."""

    dollars: float | None
    discount: float
    unpriced: tuple[str, ...] = ()


def endpoint_cost(teacher: EndpointTeacher, work: Work) -> Cost:
    """What the answers cost at the teacher's prices, half of them through the Batch API."""
    discount = _BATCH_DISCOUNT if teacher.batch else 1.0
    prices = {"price_input": teacher.price_input, "price_output": teacher.price_output}
    unpriced = tuple(name for name, price in prices.items() if price is None)
    if len(unpriced) == len(prices):
        return Cost(None, discount, unpriced)
    full = work.prompt_tokens * (teacher.price_input or 0.0) + work.completion_tokens * (teacher.price_output or 0.0)
    return Cost(discount * full / 1e6, discount, unpriced)


def budget_sentence(synth: Synth, tokens: int, dollars: float | None) -> str | None:
    """How far the recipe's budget reaches, for all that teachers are asked; None if it has none."""
    limits = []
    if synth.budget.dollars is not None and dollars:
        limits.append((synth.budget.dollars / dollars, f"${synth.budget.dollars:,.2f}", f"${dollars:,.2f}"))
    if synth.budget.tokens is not None:
        limits.append((synth.budget.tokens / tokens, f"{synth.budget.tokens:,} tokens", f"{tokens:,} in and out"))
    if not limits:
        return None
    share, budget, estimate = min(limits)
    if share < 1:
        return f"The budget of {budget} ends the run at about {share:.0%} of the tokens (estimate: {estimate})."
    return f"The budget of {budget} is enough: the estimate is {estimate}, {1 / share:.0%} of it."


def corpora_disk(recipe: Recipe, work: Work | None, for_code: int) -> dict[str, float]:
    """Bytes of the journal and of each corpus; `for_code` are the tokens that a teacher writes for the code corpus."""
    characters_per_token = recipe.plan.characters_per_token
    characters = source_characters(recipe, work, for_code)
    found: dict[str, float] = {}
    for source in recipe.needed_sources():
        name, share = f"corpus/{source}", _PARQUET_BYTES[source]
        if source != "synthetic":
            found[f"refined/{source}"] = SPARE * share * section(recipe, source).characters
            found[name] = share * characters[source]
        elif work is not None:
            found["journal"] = work.requests * _RECORD_BYTES + work.completion_tokens * characters_per_token
            found[name] = work.documents * _ROW_BYTES + share * work.tokens * characters_per_token
    return found


def source_characters(recipe: Recipe, work: Work | None, for_code: int) -> dict[SourceName, float]:
    """About how many characters each source comes to, if all that is asked for is found and kept."""
    return {
        "web": float(recipe.web.characters),
        "code": recipe.code.characters + for_code * recipe.plan.characters_per_token,
        "synthetic": work.tokens * recipe.plan.characters_per_token if work else 0.0,
    }


def source_tokens(recipe: Recipe, work: Work | None, for_code: int) -> dict[str, float]:
    """About how many tokens of each source are there to train on."""
    characters = source_characters(recipe, work, for_code)
    kept = (1 - recipe.corpus.held_out_share) / recipe.plan.characters_per_token
    return {source: characters[source] * kept for source in recipe.used_sources()}


def _documents(synth: Synth, document_tokens: float) -> int:
    """Documents until the first of the recipe's two targets is reached."""
    targets = [] if synth.tokens is None else [math.ceil(synth.tokens / document_tokens)]
    return min([*targets, *([] if synth.documents is None else [synth.documents])])


def _sample(recipe: Recipe) -> list[_Unit]:
    from prompts.passages import Snippet
    from prompts.stream import PromptStream
    from prompts.tables import load_tables
    from prompts.wording import Wording

    # One passage of the greatest length stands for all: which it is changes nothing here, and there may be none yet.
    prompts = recipe.prompts.model_copy(update={"snippet_choice": "random"})
    passage = [Snippet("plan", _filler(recipe.prompts.snippet_words, recipe))] if prompts.snippet_share else []
    stream = PromptStream(recipe.model_copy(update={"prompts": prompts}), passage)
    wording = Wording(load_tables(), recipe.synth.sampling.max_tokens)
    return [_expected(recipe, stream, wording, stream[index]) for index in range(_SAMPLE)]


def _expected(recipe: Recipe, stream: PromptStream, wording: Wording, unit: Unit) -> _Unit:
    """A unit's steps one after another: each is asked only if the one before brought a usable reply."""
    plan, synth = recipe.plan, recipe.synth
    usable = 1 - (1 - plan.accepted) ** (synth.accept.retries + 1)
    tries = usable / plan.accepted
    requests = prompts = completions = document = 0.0
    reached = 1.0
    replies: list[str] = []
    for step in stream.forms[unit.form].steps:
        words = wording.words(step, unit.length)
        characters = sum(len(message["content"]) for message in unit.messages(replies))
        out = min(words * plan.tokens_per_word, synth.sampling.max_tokens)
        requests += reached * tries
        prompts += reached * tries * characters / plan.characters_per_token
        completions += reached * tries * out
        document += out if step.keep else 0.0
        reached *= usable
        replies.append(_filler(words, recipe))
    return _Unit(requests, prompts, completions, reached, document, unit.steps, unit.snippet is not None)


def _filler(words: int, recipe: Recipe) -> str:
    """A text as long as so many words of a teacher, a numbered line for every dozen (forms may divide a plan)."""
    characters = round(words * recipe.plan.tokens_per_word * recipe.plan.characters_per_token)
    lines = max(3, words // 12)
    return "\n".join(f"{number}. ".ljust(characters // lines, "x") for number in range(1, lines + 1))
