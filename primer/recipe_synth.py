"""The part of the recipe that generation reads: teachers, sampling, acceptance, budget."""

from __future__ import annotations

from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from primer.section import Section, Share


class EmbeddedTeacher(Section):
    """llama.cpp inside this machine: no key, no GPU, no download beyond the Python packages."""

    kind: Literal["embedded"] = "embedded"
    model: str = Field("smollm2-135m-instruct", description="The packaged model, or the path of a .gguf file.")
    threads: int | None = Field(None, ge=1, description="Threads; null means every core.")
    context: int = Field(2048, ge=256, description="Context window of one request, in tokens.")


def _check_address(address: str) -> None:
    """Refuse what is no address, and one that carries a password or a query (where keys hide): recipes are kept."""
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("no address of an API; expected scheme, host and path, like https://api.openai.com/v1")
    if parts.username or parts.password or parts.query:
        raise ValueError(
            f"the address of {parts.hostname} carries a user name, password or query; keys do not belong in a recipe: "
            "put the key in an environment variable and name it in api_key_env"
        )


class EndpointTeacher(Section):
    """Any OpenAI-compatible endpoint, or several that serve the same model: OpenAI, vLLM, llama.cpp, others."""

    kind: Literal["openai"]
    base_url: str | list[str] = Field(
        "https://api.openai.com/v1", description="Address of the API, including /v1; or a list of them."
    )
    model: str = Field(description="Model name as the endpoint knows it.")
    service: str | None = Field(
        None, min_length=1, description="Name that answers are kept under where addresses change; null: the addresses."
    )
    api_key_env: str = Field("OPENAI_API_KEY", description="Environment variable that holds the key (never the key).")
    system_prompt: Literal["send", "merge"] = Field(
        "send", description="merge: put it before the question, for models that know no system role (Mixtral)."
    )
    batch: bool = Field(False, description="Ask through the Batch API: half the price, answers within a day.")
    requests_per_minute: int | None = Field(None, ge=1, description="Most requests a minute, at each address.")
    tokens_per_minute: int | None = Field(None, ge=1, description="Most tokens a minute, in and out, at each address.")
    price_input: float | None = Field(None, ge=0, description="US dollars per million prompt tokens, for the cost.")
    price_output: float | None = Field(None, ge=0, description="US dollars per million completion tokens.")

    @field_validator("base_url")
    @classmethod
    def _some_address(cls, value: str | list[str]) -> str | list[str]:
        if isinstance(value, list) and (not value or len(set(value)) < len(value)):
            raise ValueError(f"it is {value}; expected at least one address, and each once")
        for address in [value] if isinstance(value, str) else value:
            _check_address(address)
        return value

    @model_validator(mode="after")
    def _one_address_for_batches(self) -> Self:
        if self.batch and len(self.addresses) > 1:
            raise ValueError(
                f"batch is true, and base_url names {len(self.addresses)} addresses; a batch is sent to one"
            )
        return self

    @property
    def addresses(self) -> list[str]:
        """The addresses as a list."""
        return [self.base_url] if isinstance(self.base_url, str) else self.base_url


class VllmTeacher(Section):
    """vLLM on this machine's GPU, started by Primer and stopped again."""

    kind: Literal["vllm"]
    model: str = Field(description="A preset (`primer teacher presets`), hub name or local directory of the model.")
    mode: Literal["server", "in_process"] = Field(
        "server", description="server: `vllm serve` beside Primer; in_process: vLLM's engine inside it."
    )
    environment: str | None = Field(
        None, description="Virtual environment with vLLM, for a server; null: .venv-vllm if it is there, else Primer's."
    )
    arguments: list[str] = Field([], description="Further arguments of `vllm serve`.")
    startup_seconds: int = Field(900, ge=10, description="How long it may take to answer, in seconds.")


Teacher = Annotated[EmbeddedTeacher | EndpointTeacher | VllmTeacher, Field(discriminator="kind")]


def embedded_by_default(value: object) -> object:
    """A teacher's table that names no kind means the embedded one."""
    return {"kind": "embedded", **value} if isinstance(value, dict) else value


class Sampling(Section):
    """How the teacher samples."""

    temperature: float = Field(0.8, ge=0, le=2)
    top_p: float = Field(0.95, gt=0, le=1)
    max_tokens: int = Field(
        1000, ge=16, description="Longest reply, in the teacher's tokens; no prompt asks for more words than fit."
    )
    frequency_penalty: float = Field(0.0, ge=-2, le=2, description="Lowers the logit of a token by its count so far.")
    presence_penalty: float = Field(0.0, ge=-2, le=2, description="Lowers the logit of a token already used.")


class Accept(Section):
    """What a reply must be to enter the corpus."""

    min_words: int = Field(40, ge=1, description="Shortest document, in words.")
    truncated: Literal["continue", "trim", "drop"] = Field(
        "trim",
        description="A reply cut at max_tokens: ask for the rest, keep it up to its last whole sentence, or reject it.",
    )
    retries: int = Field(0, ge=0, le=10, description="How often a rejected reply is asked for again, with other seeds.")
    max_repetition: Share = Field(
        0.2, description="Largest share of a document's characters inside repeated 5-word sequences."
    )
    max_copied: Share = Field(
        0.25, description="Largest share of a web passage that a reply may repeat, in runs of 8 words or more."
    )


class Budget(Section):
    """What a run folder may spend, over all its runs.

    Every answer counts as the endpoint reports it, requests in flight as the most they may cost. A try that brought no
    answer is not counted: nobody says what it cost.
    """

    dollars: float | None = Field(None, gt=0, description="US dollars, at the teacher's prices; null: no limit.")
    tokens: int | None = Field(None, ge=1, description="Tokens, in and out together; null: no limit.")


class Synth(Section):
    """Generation of the synthetic corpus, up to its tokens or documents, whichever come first."""

    tokens: int | None = Field(50_000, ge=1, description="Accepted tokens to collect, in the teacher's count.")
    documents: int | None = Field(None, ge=1, description="Accepted documents to collect; null: as tokens say.")
    teacher: Teacher = Field(default_factory=EmbeddedTeacher)
    sampling: Sampling = Field(default_factory=Sampling)
    accept: Accept = Field(default_factory=Accept)
    budget: Budget = Field(default_factory=Budget)
    concurrency: int = Field(16, ge=1, le=4096, description="Requests in flight at most.")
    timeout: float = Field(300.0, gt=0, description="Longest wait for one reply, in seconds.")
    patience: float = Field(
        600.0,
        gt=0,
        description="Seconds of errors without an answer after which the run stops; more than a reply takes.",
    )

    @model_validator(mode="after")
    def _has_an_end(self) -> Self:
        if self.tokens is None and self.documents is None:
            raise ValueError("tokens and documents are both null; expected a number for one of them")
        teacher = self.teacher
        priced = isinstance(teacher, EndpointTeacher) and None not in (teacher.price_input, teacher.price_output)
        if self.budget.dollars is not None and not priced:
            raise ValueError(
                f"budget.dollars is {self.budget.dollars:g}, but the teacher's prices are not known; use budget.tokens"
                + ", or give teacher.price_input and teacher.price_output" * isinstance(teacher, EndpointTeacher)
            )
        return self

    @field_validator("teacher", mode="before")
    @classmethod
    def _embedded(cls, value: object) -> object:
        return embedded_by_default(value)
