"""A trained model on disk as people name it: its directory, or the run folder that holds it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from primer.errors import PrimerError


def find_model(path: Path) -> Path:
    """The model directory that a path means: itself, or the only model of a run folder.

    Raises:
        PrimerError: If there is no such directory, it holds no model, or it holds several.
    """
    path = path.expanduser()
    if not path.is_dir():
        problem = f"{path} is a file, not a directory." if path.exists() else f"There is no directory {path}."
        raise PrimerError(problem, "Name a model on this disk, such as runs/demo/models/mixed.")
    if (path / "config.json").is_file():
        return path
    models = sorted(config.parent for folder in (path, path / "models") for config in folder.glob("*/config.json"))
    if len(models) == 1:
        return models[0]
    if models:
        raise PrimerError(
            f"{path} holds {len(models)} models.", "Name one of them: " + ", ".join(str(model) for model in models)
        )
    raise PrimerError(
        f"{path} is no model: it has no config.json, and no directory in it or in its models/ has one.",
        "Name a directory that `primer train` made, or another Hugging Face model directory.",
    )


def read_configuration(folder: Path) -> dict[str, Any]:
    """A model's `config.json`.

    Raises:
        PrimerError: If it cannot be read as a JSON object.
    """
    path = folder / "config.json"
    try:
        configuration = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PrimerError(f"{path} cannot be read: {error}", "Make or copy the model again.") from None
    if not isinstance(configuration, dict):
        raise PrimerError(f"{path} is not a JSON object.", "Make or copy the model again.")
    return configuration
