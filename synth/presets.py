"""What a vLLM teacher is started with: presets by name, Primer's defaults, and the recipe's own arguments over both."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, TypeAdapter, ValidationError

from primer.errors import PrimerError, did_you_mean
from primer.recipe_synth import VllmTeacher
from primer.section import Name, Section

_PRESETS = Path(__file__).with_name("presets.yaml")
_TEMPLATES = Path(__file__).with_name("templates")

Flag = bool | int | float | str

# Of every model. A model's own generation_config.json would set top_k, repetition penalties and the like behind the
# recipe's back; a line of log for each request costs time.
_DEFAULTS: dict[str, Flag] = {
    "generation-config": "vllm",
    "enable-log-requests": False,
    "disable-uvicorn-access-log": True,
}

# Primer sets these itself, and would not find its own server if they said something else.
_PRIMERS_OWN = ("host", "port", "served-model-name", "model")

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")

# Of `vllm serve`'s short names those that a recipe might use.
_SHORT = {"-tp": "tensor-parallel-size", "-pp": "pipeline-parallel-size", "-dp": "data-parallel-size"}

# Where and how fast the model runs, not what it answers: a change of these pays for no answer twice.
_SPEED_ALONE = frozenset(
    {
        "tensor-parallel-size",
        "pipeline-parallel-size",
        "data-parallel-size",
        "gpu-memory-utilization",
        "max-num-seqs",
        "max-num-batched-tokens",
        "enable-prefix-caching",
        "enable-log-requests",
        "disable-log-stats",
        "disable-uvicorn-access-log",
        "uvicorn-log-level",
        "api-server-count",
        "api-key",
        "enforce-eager",
        "download-dir",
    }
)


class Preset(Section):
    """One model that Primer knows how to serve."""

    model: str = Field(description="Name on the Hugging Face hub.")
    description: str
    parameters: float = Field(gt=0, description="In all, in billions.")
    active_parameters: float = Field(gt=0, description="At work on one token, in billions.")
    system_prompt: Literal["send", "merge"]
    template: str | None = Field(None, description="File of synth/templates.")
    licence: str
    flags: dict[str, Flag]


@dataclass(frozen=True)
class ResolvedTeacher:
    """A vLLM teacher with everything filled in.

    Attributes:
        model: Name on the hub, or a folder.
        served_names: What the model answers to: the recipe's name for it first.
        arguments: Of `vllm serve`, without the model, the address and the names.
        system_prompt: `merge` where the system prompt goes before the question.
        template: The chat template's file, where Primer brings one.
        preset: The preset's name, if there is one.
    """

    model: str
    served_names: tuple[str, ...]
    arguments: tuple[str, ...]
    system_prompt: Literal["send", "merge"]
    template: Path | None
    preset: str | None


@cache
def load_presets() -> dict[str, Preset]:
    """The presets, by name.

    Raises:
        PrimerError: If the file is missing or does not follow the schema.
    """
    try:
        text = _PRESETS.read_text(encoding="utf-8")
        return TypeAdapter(dict[Name, Preset]).validate_python(yaml.safe_load(text))
    except OSError as error:
        raise PrimerError(f"{_PRESETS} cannot be read: {error}", "Install Primer again, or restore the file.") from None
    except (ValidationError, yaml.YAMLError) as error:
        raise PrimerError(f"{_PRESETS} is no list of presets: {error}", "Mend the file, or restore it.") from None


def find_preset(model: str) -> tuple[str, Preset] | None:
    """The preset that a recipe's model names, be it by its short name or by its name on the hub."""
    for name, preset in load_presets().items():
        if model in (name, preset.model):
            return name, preset
    return None


def resolve(teacher: VllmTeacher) -> ResolvedTeacher:
    """Fill in what a vLLM teacher leaves open.

    Raises:
        PrimerError: If the model is neither preset, hub name nor folder, or an argument is one that Primer sets.
    """
    for name in (_name(argument) for argument in teacher.arguments if argument.startswith("-")):
        if name in _PRIMERS_OWN:
            raise PrimerError(
                f"The teacher's arguments hold --{name}, which Primer sets itself.",
                "Leave it out: the model is synth.teacher.model; `primer teacher serve` has --host and --port.",
            )
    found = find_preset(teacher.model)
    if found is None:
        model = _checked_model(teacher.model)
        return ResolvedTeacher(model, (teacher.model,), _over(_DEFAULTS, teacher.arguments), "send", None, None)
    name, preset = found
    template = _TEMPLATES / preset.template if preset.template else None
    flags = _DEFAULTS | preset.flags | ({"chat-template": str(template)} if template else {})
    names = tuple(dict.fromkeys((teacher.model, preset.model)))
    return ResolvedTeacher(preset.model, names, _over(flags, teacher.arguments), preset.system_prompt, template, name)


def vllm_identity(teacher: VllmTeacher) -> str:
    """What the answers depend on: the model, and those arguments that do more than make it fast.

    The same for a preset under both its names, and for a server and the engine inside Primer.

    Raises:
        PrimerError: As `resolve`.
    """
    resolved = resolve(teacher)
    parts: list[str] = [f"vllm:{resolved.model}"]
    for name, values in _grouped(resolved.arguments):
        if name == "chat-template":
            parts.append(f"chat template {_hash_of_template(values[0] if values else '')}")
        elif name.removeprefix("no-") not in _SPEED_ALONE:
            parts.append(" ".join([f"--{name}", *values]))
    return ", ".join([parts[0], *sorted(parts[1:])])


def _over(defaults: dict[str, Flag], given: list[str]) -> tuple[str, ...]:
    """The recipe's arguments, after those defaults that they do not name."""
    named = {_name(argument).removeprefix("no-") for argument in given if argument.startswith("-")}
    arguments: list[str] = []
    for name, value in defaults.items():
        if name in named:
            continue
        if isinstance(value, bool):
            arguments.append(f"--{name}" if value else f"--no-{name}")
        else:
            arguments += [f"--{name}", str(value)]
    return (*arguments, *given)


def _name(argument: str) -> str:
    """The flag's full name: of `--max_model_len=4096` it is `max-model-len`, as vLLM reads it too."""
    flag = argument.split("=", 1)[0]
    return _SHORT.get(flag, flag.lstrip("-").replace("_", "-"))


def _grouped(arguments: tuple[str, ...]) -> list[tuple[str, list[str]]]:
    """Flags with their values."""
    groups: list[tuple[str, list[str]]] = []
    for argument in arguments:
        if argument.startswith("--") or argument in _SHORT:
            _, given, value = argument.partition("=")
            groups.append((_name(argument), [value] if given else []))
        elif groups:
            groups[-1][1].append(argument)
    return groups


def _hash_of_template(value: str) -> str:
    """Of the text, so that a file may move; the flag takes a template in so many words, too."""
    path = Path(value)
    try:
        text = path.read_text(encoding="utf-8") if path.is_file() else value
    except (OSError, ValueError):
        text = value
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _checked_model(model: str) -> str:
    """Say at once what the hub would say after a minute.

    Raises:
        PrimerError: If this can be no model.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        return str(folder)
    if _HUB_NAME.fullmatch(model):
        return model
    known = load_presets()
    raise PrimerError(
        f"The teacher's model is {model!r}: no preset, no folder, and no name of the form owner/model.",
        f"{did_you_mean(model, known)}The presets are {', '.join(known)}.",
    )
