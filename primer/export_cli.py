"""`primer export`: a trained model in the file format of another program."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from primer.errors import PrimerError, disk_full


def export_command(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model directory, such as runs/demo/models/mixed.")],
    gguf: Annotated[Path, typer.Option("--gguf", metavar="FILE", help="The GGUF file to write, for llama.cpp.")],
    kind: Annotated[
        Literal["f32", "f16", "bf16", "q8_0"],
        typer.Option("--type", help="Of the matrices; q8_0 has 8 bits a weight and a scale for 32."),
    ] = "f16",
) -> None:
    """Write a model as a GGUF file, for llama.cpp.

    What is built on llama.cpp runs it too. The tokenizer goes in with it, and divides texts into the same tokens there.
    A model directory needs no export for transformers and vLLM.
    """
    from primer.model_folder import find_model
    from primer.progress import say

    folder = find_model(model)
    if gguf.exists() and not gguf.is_file():  # a device would be replaced by the file
        problem = "is a directory" if gguf.is_dir() else "is no ordinary file"
    else:
        problem = "" if gguf.absolute().parent.is_dir() else "lies in a directory that does not exist"
    if problem:
        raise PrimerError(f"{gguf} {problem}.", "Name a file in a directory that is there, such as model.gguf.")
    from train.gguf_file import write_gguf

    try:
        write_gguf(folder, gguf, kind)
    except OSError as error:
        if disk_full(error):
            raise
        raise PrimerError(f"{gguf} cannot be written: {error}", "Name a file in a directory of yours.") from None
    say(f"{gguf}: {gguf.stat().st_size / 1e6:,.1f} MB, from {folder}")
