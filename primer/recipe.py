"""The recipe: one strict, documented schema for a whole experiment.

Every field carries its description, default and unit; `primer recipe --fields` prints them. Loading,
inheritance and overrides are in :mod:`primer.recipe_file`; which fields make a stage run again is in
:mod:`primer.fingerprint`.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from primer.recipe_corpora import Code, Corpus, Web
from primer.recipe_plan import Planning
from primer.recipe_synth import Synth
from primer.recipe_train import Model, Tokenizer, Train
from primer.section import Name, Section, Share, Weight

SourceName = Literal["synthetic", "web", "code"]
SOURCES: tuple[SourceName, ...] = ("synthetic", "web", "code")

# Prompts carry passages of the web corpus, and each corpus leaves out texts that an earlier one holds.
CORPUS_ORDER: tuple[SourceName, ...] = ("web", "code", "synthetic")


class TopicWeights(Section):
    """How often topics are drawn, relative to the others: 1 where nothing is said, 0 leaves out."""

    fields: dict[str, Weight] = Field({}, description="Weight of the topics of a field.")
    kinds: dict[str, Weight] = Field({}, description="Weight of the topics of a kind.")
    levels: dict[str, Weight] = Field({}, description="Weight of a reading level, among a topic's own too.")


class Topics(Section):
    """Which of the topic seeds the experiment draws from."""

    lists: list[str] = Field(
        ["primer"], min_length=1, description="Lists of seeds: primer is the built-in one, others are folders."
    )
    fields: list[str] = Field([], description="Fields to draw topics from, by file name; empty means all of them.")
    weights: TopicWeights = Field(default_factory=TopicWeights)


class Prompts(Section):
    """How a topic becomes a prompt.

    Weights are relative. A table names what is used; one of zeros alone names what is not; an empty one means all.
    """

    folders: list[str] = Field([], description="Folders of further forms (*.j2) beside the built-in ones.")
    forms: dict[str, Weight] = Field({}, description="Weight of each form (template).")
    audiences: dict[str, Weight] = Field({}, description="Weight of each audience.")
    lengths: dict[str, Weight] = Field({}, description="Weight of each length: short, usual, long.")
    registers: dict[str, Weight] = Field({}, description="Weight of each register, such as plain or vivid.")
    languages: dict[str, Weight] = Field({"english": 1.0}, description="Weight of each language.")
    required_words: Share = Field(1.0, description="Share of prompts that name three words the text must contain.")
    snippet_share: Share = Field(0.5, description="Share of prompts that carry a passage of web text.")
    snippet_words: int = Field(60, ge=10, le=400, description="Longest web passage in a prompt, in words.")
    snippet_choice: Literal["random", "relevant"] = Field(
        "random", description="Which passage: any, or one of those that share most with the topic's title (BM25)."
    )


class Variant(Section):
    """One model of the comparison: a name and a mixture by token share."""

    name: Name
    mixture: dict[SourceName, Share] = Field(min_length=1)

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        total = sum(self.mixture.values())
        if abs(total - 1.0) > 1e-6:
            raise ValueError(f"the shares of variant {self.name!r} add up to {total:g}; expected 1")
        return self


def _phi_variants() -> list[Variant]:
    # arXiv 2309.05463, section 2.4: phi-1.5, phi-1.5-web-only and phi-1.5-web, each with 20% code.
    return [
        Variant(name="synthetic", mixture={"synthetic": 0.8, "code": 0.2}),
        Variant(name="web", mixture={"web": 0.8, "code": 0.2}),
        Variant(name="mixed", mixture={"web": 0.4, "synthetic": 0.4, "code": 0.2}),
    ]


class Eval(Section):
    """What the models are asked."""

    suites: list[str] = Field(
        [],
        description="Suites to run, or groups of them (built-in, benchmarks, common-sense, language, multi-step, "
        "safety); empty means all whose data is present.",
    )
    data: str | None = Field(
        None, description="Folder of benchmark data, one folder a suite; null means $PRIMER_EVAL_DATA, if set."
    )
    hub: bool = Field(True, description="Fetch benchmarks that no folder holds from the Hugging Face hub.")
    limit: int | None = Field(None, ge=1, description="Largest number of rows of a suite; null means all.")
    samples: int = Field(1, ge=1, le=1000, description="Programs written for each task of code; pass@1 is estimated.")
    temperature: float = Field(
        0.0, ge=0, le=10, description="Temperature of those programs; more than one needs it above 0."
    )
    backend: Literal["torch", "vllm"] = Field("torch", description="What runs the models.")
    weak_isolation: bool = Field(
        False, description="Run generated programs without namespaces where the system allows none."
    )
    bootstrap_samples: int = Field(2000, ge=100, description="Resamples behind every interval.")

    @model_validator(mode="after")
    def _samples_differ(self) -> Self:
        if self.samples > 1 and self.temperature == 0:
            raise ValueError(f"samples is {self.samples} at temperature 0, where all are the same; raise temperature")
        return self


class Recipe(Section):
    """A whole experiment: corpora, models, evaluation."""

    name: Name = Field(description="Name of the experiment, and of its run folder below runs/.")
    description: str = Field("", description="One or two sentences for the report.")
    seed: int = Field(0, ge=0, description="Seed of everything that is random.")
    topics: Topics = Field(default_factory=Topics)
    prompts: Prompts = Field(default_factory=Prompts)
    synth: Synth = Field(default_factory=Synth)
    web: Web = Field(default_factory=Web)
    code: Code = Field(default_factory=Code)
    corpus: Corpus = Field(default_factory=Corpus)
    tokenizer: Tokenizer = Field(default_factory=Tokenizer)
    model: Model = Field(default_factory=Model)
    train: Train = Field(default_factory=Train)
    variants: list[Variant] = Field(default_factory=_phi_variants, min_length=1)
    eval: Eval = Field(default_factory=Eval)
    plan: Planning = Field(default_factory=Planning)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [variant.name for variant in self.variants]
        if len(set(names)) != len(names):
            raise ValueError(f"variants have the names {names}; expected each once")
        if self.train.batch_tokens % self.model.context:
            raise ValueError(
                f"train.batch_tokens is {self.train.batch_tokens}; expected a multiple of model.context "
                f"({self.model.context})"
            )
        if self.train.tokens < self.train.batch_tokens:
            raise ValueError(
                f"train.tokens is {self.train.tokens}; expected at least one batch "
                f"(train.batch_tokens is {self.train.batch_tokens})"
            )
        models = [name for variant in self.variants for name in self.model_names(variant)]
        if len(set(models)) != len(models):
            raise ValueError(f"with train.seeds the models have the names {models}; expected each once")
        return self

    def model_names(self, variant: Variant) -> list[str]:
        """The names of a variant's models: its own, and one more for each further training seed."""
        return [variant.name, *(f"{variant.name}-seed{number}" for number in range(2, self.train.seeds + 1))]

    def used_sources(self) -> list[SourceName]:
        """The sources that some variant trains on, in the order of `SOURCES`."""
        return [s for s in SOURCES if any(variant.mixture.get(s, 0) > 0 for variant in self.variants)]

    def needed_sources(self) -> list[SourceName]:
        """The corpora to make, in the order of `CORPUS_ORDER`: the used ones, and web text for the prompts."""
        used = set(self.used_sources())
        if "synthetic" in used and self.prompts.snippet_share > 0:
            used.add("web")
        return [source for source in CORPUS_ORDER if source in used]
