"""The part of the recipe that `primer train` reads: tokenizer, model, optimiser, engine, and what is watched."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from primer.section import Section, Share

# codegen-mono's vocabulary: GPT-2's 50,257 tokens and 38 whitespace runs, padded to a multiple of 1,024.
CODEGEN_VOCABULARY_SIZE = 51_200

# Begins of texts in the formats of the phi-1.5 article (section 4): plain text, question and answer, chat, Python.
_PROMPTS = (
    "The water cycle begins when",
    "Why does ice float on water?\n\nAnswer:",
    "Alice: I planted a bean last week and nothing has happened.\n\nBob:",
    'def count_vowels(text):\n    """\n    Return how many vowels the text has.\n    """\n',
)


class Tokenizer(Section):
    """codegen-mono's vocabulary, as phi-1.5 used, or one trained on this experiment's corpus."""

    kind: Literal["codegen", "trained"] = "codegen"
    vocabulary_size: int = Field(
        CODEGEN_VOCABULARY_SIZE, ge=300, le=500_000, description="Tokens, padding included (codegen: 51,200)."
    )

    @model_validator(mode="after")
    def _codegen_size(self) -> Self:
        if self.kind == "codegen" and self.vocabulary_size != CODEGEN_VOCABULARY_SIZE:
            raise ValueError(
                f"vocabulary_size is {self.vocabulary_size}, but the codegen vocabulary has {CODEGEN_VOCABULARY_SIZE}"
            )
        return self


class Model(Section):
    """A decoder; the defaults are phi-1.5's (arXiv 2309.05463, section 2.1), the options those of later models.

    What is trained is saved as a class of Hugging Face transformers. Two families have one: Phi's (`norm: layer`,
    `mlp: gelu`, `block: parallel`, `biases: true`) and Mistral's (`rms`, `swiglu`, `sequential`, `false`), which may
    also have a window and experts.
    """

    layers: int = Field(24, ge=1)
    heads: int = Field(32, ge=1)
    key_value_heads: int | None = Field(
        None,
        ge=1,
        description="Heads of keys and values, each shared by a group of queries; null means as many as heads.",
    )
    head_dimension: int = Field(64, ge=2)
    rotary_dimension: int = Field(32, ge=2, description="Leading dimensions of each head that are rotated.")
    window: int | None = Field(
        None, ge=1, description="Places that attention sees, its own included; null means all before it."
    )
    feed_forward: int | None = Field(None, ge=1, description="Width of the MLP; null means 4 x the model's width.")
    norm: Literal["layer", "rms"] = Field("layer", description="LayerNorm, or RMSNorm (arXiv 1910.07467).")
    mlp: Literal["gelu", "swiglu"] = Field("gelu", description="GELU (tanh), or SwiGLU (arXiv 2002.05202).")
    block: Literal["parallel", "sequential"] = Field(
        "parallel", description="Attention and MLP side by side on one norm, or one after the other on two."
    )
    biases: bool = Field(True, description="Whether linear layers and the head have biases.")
    experts: int | None = Field(None, ge=2, description="MLPs of each block to choose from; null means one for all.")
    experts_per_token: int = Field(2, ge=1, description="Of them, how many work on a token.")
    dropout: Share = Field(0.0, description="Share dropped of attention and of what each block adds (phi-1: 0.1).")
    context: int = Field(2048, ge=8, description="Sequence length, in tokens.")

    @property
    def width(self) -> int:
        """Width of the residual stream."""
        return self.heads * self.head_dimension

    @property
    def feed_forward_width(self) -> int:
        """Width of the MLP's hidden layer."""
        return self.feed_forward or 4 * self.width

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.rotary_dimension % 2 or self.rotary_dimension > self.head_dimension:
            raise ValueError(
                f"rotary_dimension is {self.rotary_dimension}; expected an even number of at most "
                f"head_dimension ({self.head_dimension})"
            )
        if self.heads % (self.key_value_heads or self.heads):
            raise ValueError(f"key_value_heads is {self.key_value_heads}; expected a divisor of heads ({self.heads})")
        if self.experts and self.experts_per_token > self.experts:
            raise ValueError(
                f"experts_per_token is {self.experts_per_token}; expected at most experts ({self.experts})"
            )
        return self

    @model_validator(mode="after")
    def _has_a_class(self) -> Self:
        phi = (self.norm, self.mlp, self.block, self.biases) == ("layer", "gelu", "parallel", True)
        mistral = (self.norm, self.mlp, self.block, self.biases) == ("rms", "swiglu", "sequential", False)
        extras = [key for key in ("window", "experts") if getattr(self, key) is not None]
        if not phi and not mistral:
            raise ValueError(
                "no class of transformers has this norm, mlp, block and biases; expected layer, gelu, parallel, "
                "true (Phi) or rms, swiglu, sequential, false (Mistral)"
            )
        if phi and extras:
            raise ValueError(
                f"Phi in transformers has no {' and no '.join(extras)}; leave out, or choose Mistral's family"
            )
        if mistral and self.rotary_dimension != self.head_dimension:
            raise ValueError(
                f"rotary_dimension is {self.rotary_dimension}; Mistral rotates whole heads ({self.head_dimension})"
            )
        return self


class Train(Section):
    """The optimiser and the budget; the defaults are phi-1.5's (arXiv 2309.05463, section 2.3)."""

    tokens: int = Field(150_000_000_000, ge=1, description="Training tokens of each variant.")
    batch_tokens: int = Field(2048 * 2048, ge=1, description="Tokens per optimiser step, on all devices together.")
    micro_batch: int | None = Field(
        None, ge=1, description="Sequences per forward pass on a device; null means find what fits."
    )
    learning_rate: float = Field(2e-4, gt=0)
    schedule: Literal["constant", "cosine", "linear", "wsd"] = Field(
        "constant", description="After the warm-up; wsd: constant, then a linear decay (warm-up, stable, decay)."
    )
    warmup_steps: int = Field(0, ge=0, description="Steps of linear warm-up.")
    decay_share: Annotated[float, Field(gt=0, le=1)] = Field(
        0.2, description="Share of the steps in which wsd decays (arXiv 2405.18392: 0.2 is enough)."
    )
    final_share: Share = Field(0.1, description="Of the learning rate, what cosine, linear and wsd end with.")
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.98
    epsilon: float = Field(1e-7, gt=0)
    weight_decay: float = Field(0.1, ge=0, description="Decoupled; on matrices only, not on biases and norms.")
    gradient_clip: float | None = Field(None, gt=0, description="Largest gradient norm; null means no clipping.")
    mask_documents: bool = Field(False, description="Whether attention stays within a document.")
    spike: float | None = Field(
        8.0,
        gt=0,
        description="Deviations above the median of recent losses that are a spike, which takes training back to the "
        "checkpoint before and past the data; null means never.",
    )
    seeds: int = Field(1, ge=1, le=20, description="Models trained of each variant, each from another seed.")
    max_epochs: float = Field(4.0, gt=0, description="How often a source may be repeated without a warning.")
    precision: Literal["auto", "fp32", "fp16", "bf16"] = Field("auto", description="auto: fp16 on a GPU, else fp32.")
    engine: Literal["torch", "deepspeed"] = Field(
        "torch", description="torch: PyTorch, its DDP on several devices; deepspeed: ZeRO stage 2."
    )
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = Field(None, ge=1, description="CPU threads of a process; null means its share of the cores.")
    compile: bool = Field(False, description="Compile the model (worth it on a GPU; the first step takes minutes).")
    checkpoint_seconds: float = Field(300.0, gt=0, description="Seconds between checkpoints.")
    keep_checkpoints: int = Field(
        2, ge=2, description="Newest checkpoints that are kept while training; the last may hold a fault just found."
    )
    keep_every: int | None = Field(
        None, ge=1, description="Steps between checkpoints that are kept for good, beside the model; null means none."
    )
    validations: int = Field(10, ge=0, description="How often the held-out loss by source is measured, evenly spread.")
    validation_tokens: int = Field(100_000, ge=1, description="Held-out tokens of each source that it is measured on.")
    prompts: list[str] = Field(
        list(_PROMPTS), description="Begins of texts that the model completes after each validation."
    )
    trackers: list[Literal["tensorboard", "wandb"]] = Field(
        ["tensorboard"], description="Where curves go beside training.jsonl."
    )
    hang_seconds: float | None = Field(
        None,
        gt=0,
        description="Silence after which `primer train --supervise` takes a process for hung; null: by its pace.",
    )
