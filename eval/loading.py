"""Model directories, opened for use."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from primer.errors import PrimerError


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


def load_model(folder: Path, device: torch.device) -> tuple[Any, Any]:
    """A model, ready to be asked, and its tokenizer.

    Raises:
        PrimerError: If the directory holds no such model, or a damaged one.
    """
    if not (folder / "config.json").is_file():
        raise PrimerError(f"{folder} is no model directory: it has no config.json.", "Run `primer train` to make it.")
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
            "Run `primer train` to make it again.",
        ) from error
    _check(model, tokenizer, found["missing_keys"], folder)
    _fuse_activation(model)
    return model.to(device).eval(), tokenizer


def _check(model: Any, tokenizer: Any, missing: Collection[str], folder: Path) -> None:
    """Refuse what transformers makes up: random values for a tensor, an empty tokenizer for a missing one."""
    rows, ids = model.get_input_embeddings().num_embeddings, tokenizer.get_vocab().values()
    if missing:
        problem = f"its weights lack {len(missing):,} tensor(s), {min(missing)} among them"
    elif not tokenizer("a", add_special_tokens=False)["input_ids"]:
        problem = "its tokenizer is missing or knows no letters"
    elif max(ids) >= rows:
        problem = f"its tokenizer has {max(ids) + 1:,} tokens, its embedding {rows:,}: they are of different models"
    else:
        return
    raise PrimerError(f"The model in {folder} cannot be used: {problem}.", "Make or copy the model again.")


def _fuse_activation(model: torch.nn.Module) -> None:
    """Phi's activation, seven operations in transformers, as the one operation that torch has for the same formula."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child).__name__ == "NewGELUActivation":
                setattr(module, name, torch.nn.GELU(approximate="tanh"))
