"""The part of the recipe that web text and code are made by: sources, filters, screens, deduplication."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from primer.recipe_synth import Sampling, Teacher, embedded_by_default
from primer.section import Section, Share

Rule = Literal["gopher_repetition", "gopher_quality", "c4", "fineweb"]


class WebSample(Section):
    """The Wikipedia articles that ship with the gensim package: the demo's stand-in for web text."""

    kind: Literal["wikipedia_sample"]


class PythonLibrary(Section):
    """The source files of the running Python's standard library."""

    kind: Literal["python_library"]


class HubDataset(Section):
    """A data set on the Hugging Face hub, streamed."""

    kind: Literal["dataset"]
    path: str = Field(description="Repository, such as HuggingFaceFW/fineweb.")
    name: str | None = Field(None, description="Configuration of the data set.")
    split: str = Field("train")
    text_column: str = Field("text")


class LocalFiles(Section):
    """Files on this machine: Parquet, JSON Lines, plain text, HTML pages, or WARC archives of a crawl."""

    kind: Literal["files"]
    paths: list[str] = Field(
        min_length=1, description="Files or glob patterns (.parquet, .jsonl, .txt, .md, .py, .html, .warc.gz, ...)."
    )
    text_column: str = Field("text", description="Column of the text in Parquet and JSON Lines files.")


class Repositories(Section):
    """Folders of source code, such as clones of repositories."""

    kind: Literal["repositories"]
    paths: list[str] = Field(
        min_length=1, description="Folders or glob patterns; each folder found is one repository, whatever lies in it."
    )
    suffixes: list[str] = Field([".py"], min_length=1, description="Endings of the files to take.")


class Quality(Section):
    """A filter for educational value, as in "Textbooks Are All You Need" (arXiv 2306.11644, section 2.1).

    A teacher scores samples from 0 to 5; a classifier over sentence embeddings learns the scores and filters the rest.
    """

    rubric: Literal["education", "code"] | None = Field(None, description="null: education for web, code for code.")
    samples: int = Field(100_000, ge=20, description="Texts that the teacher scores.")
    repeated: int = Field(1000, ge=0, description="How many of them are scored twice, to see how far it agrees.")
    words: int = Field(400, ge=20, description="Words of a text that the teacher is shown, from its beginning.")
    good: int = Field(3, ge=1, le=5, description="Score from which a text counts as good.")
    keep: Annotated[float, Field(gt=0, le=1)] = Field(
        0.2, description="Share of the texts to keep, those that score highest by the classifier."
    )
    classifier: Literal["random_forest", "linear"] = Field(
        "random_forest", description="The paper's, or a linear probe; both are trained and measured."
    )
    teacher: Teacher | None = Field(None, description="Who scores; null: synth.teacher.")
    sampling: Sampling = Field(default_factory=lambda: Sampling(temperature=0.3, max_tokens=160))
    trained: str | None = Field(
        None,
        description="Folder of a filter that is trained already, relative to the current folder; null: train one. "
        "Its classifier and threshold hold, and the other keys of this section change nothing.",
    )

    @field_validator("teacher", mode="before")
    @classmethod
    def _embedded(cls, value: object) -> object:
        return embedded_by_default(value)


class Screens(Section):
    """What is done about personal data and hostile language in a source."""

    personal_data: bool = Field(True, description="Mask addresses, telephone and card numbers, and keys.")
    toxicity: bool = Field(True, description="Score hostile and obscene language, and report how much of it there is.")
    max_toxicity: Share | None = Field(None, description="Leave out texts that score higher, such as 0.05; null: none.")


class CodeScreens(Screens):
    """The same for code, where neither is done unless it is asked for."""

    personal_data: bool = Field(False, description="Mask addresses, telephone and card numbers, and keys.")
    toxicity: bool = Field(False, description="Score hostile and obscene language, and report how much of it there is.")


class Web(Section):
    """The web corpus: one arm of the comparison, and the passages inside prompts."""

    source: Annotated[WebSample | HubDataset | LocalFiles, Field(discriminator="kind")] = Field(
        default_factory=lambda: WebSample(kind="wikipedia_sample")
    )
    characters: int = Field(3_000_000, ge=1, description="Largest amount of text to take, in characters.")
    min_words: int = Field(
        40, ge=1, description="Shortest document, in words; gopher_quality drops those below 50 in any case."
    )
    rules: list[Rule] = Field(
        ["gopher_repetition", "gopher_quality", "c4", "fineweb"],
        description="Heuristic filters, in their order; those of FineWeb (arXiv 2406.17557). Empty: none.",
    )
    quality: Quality | None = Field(None, description="Keep the educational texts; null: keep all.")
    screens: Screens = Field(default_factory=Screens)


class _Written(Section):
    """Something that the teacher writes, up to its tokens or documents, whichever come first."""

    tokens: int | None = Field(1_000_000, ge=1, description="Accepted tokens to collect, in the teacher's count.")
    documents: int | None = Field(None, ge=1, description="Accepted documents to collect; null: as tokens say.")

    @model_validator(mode="after")
    def _has_an_end(self) -> Self:
        if self.tokens is None and self.documents is None:
            raise ValueError("tokens and documents are both null; expected a number for one of them")
        return self


class CodeTextbooks(_Written):
    """Textbook sections on Python, written by the teacher: prose around short programs."""


class CodeExercises(_Written):
    """Python exercises with solutions, kept only where the solution passes its tests in the sandbox."""

    seconds: float = Field(5.0, gt=0, le=300, description="Longest run of a solution and its tests, in CPU seconds.")
    memory: int = Field(512, ge=64, description="Most memory of a run, in MiB.")


class Code(Section):
    """The code corpus, shared by every variant: filtered code, textbooks on Python, and exercises, as phi-1's."""

    source: Annotated[PythonLibrary | HubDataset | LocalFiles | Repositories, Field(discriminator="kind")] = Field(
        default_factory=lambda: PythonLibrary(kind="python_library")
    )
    characters: int = Field(1_500_000, ge=1, description="Largest amount of the source to take, in characters.")
    quality: Quality | None = Field(None, description="Keep the instructive programs; null: keep all.")
    screens: CodeScreens = Field(default_factory=CodeScreens)
    textbooks: CodeTextbooks | None = Field(None, description="Textbook sections on Python; null: none.")
    exercises: CodeExercises | None = Field(None, description="Exercises whose solutions were run; null: none.")


class Duplicates(Section):
    """MinHash-LSH: what counts as a near duplicate, and is left out of every corpus."""

    words: int = Field(5, ge=1, le=20, description="Words of a shingle (n-gram).")
    rows: Literal[2, 4, 8] = Field(4, description="Hashes of a band, out of 128: 4 makes 32 bands.")
    threshold: Share = Field(0.7, description="Estimated Jaccard similarity above which the later text is left out.")


class Corpus(Section):
    """What holds for every source."""

    held_out_share: Annotated[float, Field(gt=0, lt=0.5)] = Field(
        0.05, description="Share of topics, articles or files held out of training, for the held-out loss."
    )
    duplicates: Duplicates = Field(default_factory=Duplicates)
    decontaminate: bool = Field(True, description="Leave out texts that hold items of the benchmarks.")
    workers: int | None = Field(None, ge=1, description="Processes that read and filter; null: one a core.")
