"""The part of the recipe that `primer plan` reads: assumptions about speed and prices, which change no result."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from primer.section import Section

GpuName = Literal["a100-80gb", "h100", "h200", "l40s", "rtx-4090"]
DeviceName = Literal["auto", "cpu", "a100-80gb", "h100", "h200", "l40s", "rtx-4090"]

PositiveShare = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]

# The best published for models of about a billion parameters is 60% on an A100 and 50% on Hopper; these are less.
_TRAINING_UTILISATION: dict[GpuName, float] = {
    "a100-80gb": 0.5,
    "h100": 0.4,
    "h200": 0.4,
    "l40s": 0.4,
    "rtx-4090": 0.4,
}

# US dollars, rented by the hour. H100: median of 37 providers, May 2026; L40S: median of 13 market places, June 2026;
# A100 and H200: the middle of specialist providers, May 2026; RTX 4090: one large provider, March 2026.
_PRICES: dict[GpuName, float] = {"a100-80gb": 1.3, "h100": 2.95, "h200": 4.0, "l40s": 1.46, "rtx-4090": 0.6}


class Planning(Section):
    """What `primer plan` assumes where a run folder holds no measurement."""

    accepted: PositiveShare = Field(
        0.8, description="Share of replies that can be used; a unit of several steps needs every one of its replies."
    )
    tokens_per_word: Positive = Field(1.3, description="Tokens that a teacher writes for each word it is asked for.")
    characters_per_token: Positive = Field(4.0, description="Characters of a token, in prompts, corpora and questions.")
    teacher_parameters: Positive | None = Field(
        None, description="Parameters of the teacher, in billions; null: as its name says."
    )
    teacher_active: Positive | None = Field(
        None, description="Parameters that work on one token, in billions, for mixtures of experts; null: as above."
    )
    teacher_bits: int = Field(16, ge=2, le=32, description="Bits of a weight of the teacher on a GPU.")
    teacher_gpu: GpuName = Field("h100", description="GPU that vLLM runs on.")
    teacher_gpus: int | None = Field(
        None, ge=1, description="How many of them, a multiple of what the teacher needs; null: as few as hold it."
    )
    writing_batch: Positive = Field(
        16.0,
        description="Tokens that vLLM writes in the time in which a GPU's memory bandwidth reads the teacher's active "
        "weights once: the replies in flight, less what their caches and all else cost. A yardstick: Cosmopedia's 25 "
        "billion tokens of Mixtral 8x7B in over 10,000 H100 hours (2024) are 5.",
    )
    reading_utilisation: PositiveShare = Field(0.4, description="Share of a GPU's peak while prompts are read.")
    reply_tokens_per_second: Positive = Field(
        50.0, description="Tokens a second at which an endpoint writes one reply, whatever else it does."
    )
    cpu_tokens_per_second: Positive = Field(
        106.0,
        description="Tokens a second, in and out, of the embedded teacher on one core, at 135 million parameters; "
        "measured with the demo (two cores of an AMD EPYC). Inverse to the parameters.",
    )
    training_device: DeviceName = Field(
        "auto", description="What the models train on; auto: this CPU where they take less than a day there, else h100."
    )
    training_gpus: int = Field(1, ge=1, description="How many of them, with no loss between them.")
    training_utilisation: dict[GpuName, PositiveShare] = Field(
        _TRAINING_UTILISATION, description="Share of the peak in training, attention over the full square, by GPU."
    )
    evaluation_utilisation: PositiveShare = Field(0.1, description="Share of a GPU's peak in evaluation.")
    cpu_gflops: Positive = Field(
        85.0, description="GFLOP a second of one core, in training and evaluation; measured with the demo."
    )
    price_per_gpu_hour: dict[GpuName, Price] = Field(
        _PRICES, description="US dollars an hour, by GPU; public on-demand figures of March to June 2026."
    )

    @field_validator("training_utilisation", "price_per_gpu_hour", mode="before")
    @classmethod
    def _others_as_usual(cls, value: Any, info: Any) -> Any:
        """A table names what differs: the other GPUs keep their figures."""
        usual = _PRICES if info.field_name == "price_per_gpu_hour" else _TRAINING_UTILISATION
        return {**usual, **value} if isinstance(value, dict) else value
