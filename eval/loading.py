"""Model directories, opened for use.

`load_model` gives transformers' own model, for everything that it can do; `open_model` what scoring and writing
need, without transformers where that is possible: importing it takes longer than most evaluations of a small model.
"""

from __future__ import annotations

import copy
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from eval.encoding import load_tokenizer
from eval.phi import load_phi
from primer.errors import PrimerError

if TYPE_CHECKING:
    from eval.scoring import Decoder


def find_device(wanted: str) -> torch.device:
    """The device of that name; `auto` takes the GPU if there is one.

    Raises:
        PrimerError: If there is no such device.
    """
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise PrimerError("The device is cuda, but torch sees no GPU here.", "Take the device auto or cpu.")
    return torch.device(wanted)


def open_model(folder: Path, device: torch.device) -> tuple[Any, Any, Decoder]:
    """A model and its tokenizer, called as transformers' are, and the same model as `eval.scoring` uses it.

    Raises:
        PrimerError: If the directory holds no such model, a damaged one, or one that is not scored rightly.
    """
    phi = load_phi(folder, device)
    if phi is not None:
        tokenizer = load_tokenizer(folder)
        _check_tokens(tokenizer, phi.config.vocab_size, folder)
        return phi, tokenizer, phi
    model, tokenizer = load_model(folder, device)
    _check_head(model, folder)
    return model, tokenizer, TransformersDecoder(model, context_length(model.config, tokenizer))


def load_model(folder: Path, device: torch.device) -> tuple[Any, Any]:
    """Transformers' model, ready to be asked, and its tokenizer.

    Raises:
        PrimerError: If the directory holds no such model, or a damaged one.
    """
    if not (folder / "config.json").is_file():
        raise PrimerError(
            f"{folder} is no model directory: it has no config.json.", "Name a folder in Hugging Face layout."
        )
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    # Half precision is many times slower than single on most CPUs; on a GPU the precision of the file is kept.
    dtype = torch.float32 if device.type == "cpu" else "auto"
    disable_progress_bar()  # there is one of our own
    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, local_files_only=True, output_loading_info=True
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # damaged files surface as many types: OSError, KeyError, SafetensorError, ...
        raise PrimerError(
            f"The model in {folder} cannot be loaded: {type(error).__name__}: {error}",
            "Make or copy the model again.",
        ) from error
    _check_weights(found["missing_keys"], folder)
    _check_tokens(tokenizer, model.get_input_embeddings().num_embeddings, folder)
    _fuse_activation(model)
    return model.to(device).eval(), tokenizer


def context_length(config: Any, tokenizer: Any) -> int:
    """Tokens of a model's context, as lm-evaluation-harness finds it."""
    config = getattr(config, "text_config", None) or config
    for key in ("n_positions", "max_position_embeddings", "n_ctx"):
        if getattr(config, key, None) is not None:
            return int(getattr(config, key))
    length = getattr(tokenizer, "model_max_length", None)
    return int(length) if length and length < 10**29 else 2048  # the tokenizer's is 10^30 where it says nothing


def end_tokens(model: Any, tokenizer: Any) -> set[int]:
    """Tokens that end a text: the tokenizer's, and what the model's own settings name (one or several)."""
    settings = getattr(model, "generation_config", None) or model.config
    named = getattr(settings, "eos_token_id", None)
    several = named if isinstance(named, list | tuple) else [named]
    return {token for token in (*several, tokenizer.eos_token_id) if token is not None}


class TransformersDecoder:
    """A model of transformers as `eval.scoring` uses it (see `eval.scoring.Decoder`).

    Args:
        model: A causal language model.
        context: Tokens that it is asked at once.
    """

    def __init__(self, model: Any, context: int) -> None:
        self.device, self.dtype = model.device, model.dtype
        self._body, self._head = model.base_model, model.get_output_embeddings()
        # A mask of ours takes the place of a window's.
        window = getattr(model.config, "sliding_window", None)
        self.shares = (window is None or window >= context) and self._follows_masks()

    def begin(self, tokens: Tensor) -> Any:
        """Keys and values of a beginning, shape (1, length)."""
        return self._body(input_ids=tokens, use_cache=True).past_key_values

    def read(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
        past: Any = None,
        wanted: Tensor | None = None,
    ) -> Tensor:
        """Hidden states, shape (batch, length or wanted, width) (see `eval.phi.Phi.read`)."""
        rows = len(tokens)
        arguments: dict[str, Any] = {"input_ids": tokens, "use_cache": past is not None}
        if past is not None:
            arguments["past_key_values"] = copy.deepcopy(past)
            arguments["past_key_values"].batch_repeat_interleave(rows)
        if positions is not None and mask is not None:
            arguments["position_ids"] = positions.expand(rows, -1)
            arguments["attention_mask"] = mask.expand(rows, -1, -1, -1)
        hidden: Tensor = self._body(**arguments).last_hidden_state
        return hidden if wanted is None else hidden[torch.arange(rows, device=self.device)[:, None], wanted]

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states to logits, shape (..., vocabulary)."""
        found: Tensor = self._head(hidden)
        return found

    @torch.inference_mode()
    def _follows_masks(self) -> bool:
        """Whether a branch after a kept beginning is what it is in a sequence of its own.

        Not so where a model has a state instead of keys and values, or makes its own mask.
        """
        whole = torch.arange(6, device=self.device)[None]
        # 0 1 are kept; 2 is shared, 3 a branch that 4 5 must not see.
        mask = torch.zeros(1, 1, 4, 6, dtype=self.dtype, device=self.device)
        mask[0, 0].masked_fill_(torch.ones(4, 6, dtype=torch.bool, device=self.device).triu(3), -torch.inf)
        mask[0, 0, 2:, 3] = -torch.inf
        positions = torch.tensor([[2, 3, 3, 4]], device=self.device)
        try:
            found = self.read(whole[:, 2:], positions, mask, self.begin(whole[:, :2]))
            expected = self.read(whole[:, [0, 1, 2, 4, 5]])
        except Exception:  # whatever a model raises that takes no mask or keeps no keys
            return False
        near = 1e-3 if self.dtype == torch.float32 else 5e-2
        return torch.allclose(found[:, 2:].float(), expected[:, 3:].float(), atol=near, rtol=near)


def _check_weights(missing: Collection[str], folder: Path) -> None:
    """Refuse random values, which transformers puts where a tensor is missing."""
    if missing:
        raise _unusable(folder, f"its weights lack {len(missing):,} tensor(s), {min(missing)} among them")


def _check_tokens(tokenizer: Any, rows: int, folder: Path) -> None:
    """Refuse the empty tokenizer that transformers makes of a missing one, and that of another model."""
    if not tokenizer("a", add_special_tokens=False)["input_ids"]:
        raise _unusable(folder, "its tokenizer is missing or knows no letters")
    largest = max(tokenizer.get_vocab().values())
    if largest >= rows:
        problem = f"its tokenizer has {largest + 1:,} tokens, its embedding {rows:,}: they are of different models"
        raise _unusable(folder, problem)


def _unusable(folder: Path, problem: str) -> PrimerError:
    return PrimerError(f"The model in {folder} cannot be used: {problem}.", "Make or copy the model again.")


@torch.inference_mode()
def _check_head(model: Any, folder: Path) -> None:
    """Some architectures scale or cap their logits after the head; those are not scored rightly without it."""
    ids = torch.arange(4, device=model.device)[None] % model.config.vocab_size
    hidden = model.base_model(ids, use_cache=False).last_hidden_state
    expected, found = model(ids).logits, model.get_output_embeddings()(hidden)
    if not torch.allclose(expected.float(), found.float(), atol=1e-3, equal_nan=True):
        raise PrimerError(
            f"The model in {folder} ({type(model).__name__}) changes its logits after its head: that is not supported.",
            "Score it with the harness's own backend: lm_eval run --model hf --include_path eval/tasks ...",
        )


def _fuse_activation(model: torch.nn.Module) -> None:
    """Phi's activation, seven operations in transformers, as the one operation that torch has for the same formula."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child).__name__ == "NewGELUActivation":
                setattr(module, name, torch.nn.GELU(approximate="tanh"))
