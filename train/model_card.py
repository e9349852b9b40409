"""The model card: `README.md` of a model directory, for the Hugging Face hub, transformers and whoever opens it."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from primer.progress import duration
from primer.recipe import Recipe, Variant
from primer.run import RunFolder, write_text
from train.completions import visible
from train.curve import loss_curve
from train.facts_page import schedule_in_words
from train.guard import Incidents
from train.training_log import COMPLETIONS, VALIDATION, read_log

CARD = "README.md"
CURVE = "training.svg"

_TITLES = {"synthetic": "synthetic textbooks", "web": "web text", "code": "code"}

# ISO 639-1 codes of the languages that prompts/styles.yaml names.
_LANGUAGES = {"english": "en", "french": "fr", "german": "de", "italian": "it", "portuguese": "pt", "spanish": "es"}

# Fields of `train` that say how a training is watched and kept, and nothing of its result.
_WATCHED = {
    *("prompts", "trackers", "validations", "validation_tokens", "hang_seconds"),
    *("checkpoint_seconds", "keep_checkpoints", "keep_every"),
}

# What Markdown gives a meaning inside a line; `<`, `>` and `&` are replaced before.
_MARKDOWN = re.compile(r"([\\`*_\[\]|~$#])")

# The folders of an absolute path, which mean nothing elsewhere; not those of an address.
_FOLDERS = re.compile(r"(?<![\w:/.])/(?:[^/\s]+/)+")

_MOST_INCIDENTS = 20


def write_model_card(recipe: Recipe, variant: Variant, run: RunFolder, folder: Path, facts: Mapping[str, Any]) -> None:
    """Write a model's card and its curve.

    Args:
        recipe: The experiment.
        variant: The model's variant.
        run: Where its corpora lie.
        folder: The model's directory, with its logs.
        facts: Of its training (`training.json`).

    Raises:
        PrimerError: If the disk is full, or a manifest is damaged.
    """
    manifests = {source: run.manifest(f"corpus/{source}") for source in variant.mixture}
    corpora: dict[str, str] = {source: manifest.summary for source, manifest in manifests.items() if manifest}
    validations, incidents = read_log(folder, VALIDATION), [asdict(each) for each in Incidents(folder).all]
    completions = read_log(folder, COMPLETIONS)
    write_text(folder / CURVE, loss_curve(f"{recipe.name}: {variant.name}", read_log(folder), validations))
    write_text(folder / CARD, model_card(recipe, variant, facts, validations, completions, incidents, corpora))


def model_card(
    recipe: Recipe,
    variant: Variant,
    facts: Mapping[str, Any],
    validations: Sequence[Mapping[str, Any]],
    completions: Sequence[Mapping[str, Any]],
    incidents: Sequence[Mapping[str, Any]],
    corpora: Mapping[str, str],
) -> str:
    """The card of a finished model, in Markdown.

    Args:
        recipe: The experiment.
        variant: The model's variant.
        facts: Of its training (`train.build`).
        validations: Rows of `validation.jsonl`.
        completions: Rows of `completions.jsonl`.
        incidents: Rows of `incidents.jsonl`.
        corpora: By source, what its manifest says in a line.
    """
    parts = [
        f"---\n{yaml.safe_dump(_front(recipe, variant), sort_keys=False, allow_unicode=True)}---",
        f"# {_plain(recipe.name)}: {_plain(variant.name)}",
        _introduction(recipe, variant, facts),
        "## Limits",
        _LIMITS,
        "## How to use it",
        _use(recipe),
        "## Data",
        _data(facts, corpora),
        "## Training",
        f"![Loss over the training tokens: of the training, and of held-out text by source]({CURVE})",
        _results(facts),
        _validation(variant, validations),
        _incidents(facts, incidents),
        "### Settings",
        _settings(recipe),
        "## Completions",
        _completions(completions),
        "## How to make it again",
        _again(facts),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


_LIMITS = """\
This is a base model: it continues texts, and nobody has taught it to follow instructions, to refuse or to be polite.
What it writes may be wrong, and may be offensive or biased as texts of its sources are. It knows nothing of what has
happened since they were written, and it may repeat parts of them word for word. It is meant for research on what
training data does; do not rely on it."""


def _front(recipe: Recipe, variant: Variant) -> dict[str, Any]:
    """The card's YAML, as the hub reads it (https://huggingface.co/docs/hub/model-cards)."""
    languages = {_LANGUAGES.get(name, name) for name, weight in recipe.prompts.languages.items() if weight}
    programs = ["code"] if variant.mixture.get("code") else []
    return {
        "license": "other",
        "license_name": "see-the-data",
        "language": [*sorted(languages if variant.mixture.get("synthetic") else {"en"}), *programs],
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["primer", "base-model", *(f"{source}-data" for source in variant.mixture)],
    }


def _introduction(recipe: Recipe, variant: Variant, facts: Mapping[str, Any]) -> str:
    shares = ", ".join(f"{share:.4g}% {_TITLES[source]}" for source, share in _percent(variant).items())
    about = f" {_plain(recipe.description)}" if recipe.description else ""
    return (
        f"A language model of {facts['parameters']:,} parameters, trained by Primer from random weights on "
        f"{facts['tokens']:,} tokens: {shares}. It is the variant {_plain(variant.name)} of the experiment "
        f"{_plain(recipe.name)}.{about}"
    )


def _percent(variant: Variant) -> dict[str, float]:
    return {source: 100 * share for source, share in variant.mixture.items() if share}


def _use(recipe: Recipe) -> str:
    prompt = json.dumps(recipe.train.prompts[0] if recipe.train.prompts else "The water cycle begins when")
    return f"""\
In this directory:

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained(".")
tokenizer = AutoTokenizer.from_pretrained(".")
inputs = tokenizer({prompt}, return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=48, do_sample=False)[0]))
```

```sh
primer chat .
vllm serve .    # not tried with this model
```

The context is {recipe.model.context:,} tokens."""


def _data(facts: Mapping[str, Any], corpora: Mapping[str, str]) -> str:
    rows = [
        (
            _TITLES[source],
            f"{tokens:,}",
            f"{tokens / facts['tokens']:.2%}",
            f"{facts['epochs'][source]:.2f}",
            _plain(_FOLDERS.sub("", corpora.get(source, "not recorded"))),
        )
        for source, tokens in facts["tokens_by_source"].items()
    ]
    table = _table(("source", "tokens", "share", "times seen", "the corpus"), rows, "lrrrl")
    warnings = "\n".join(f"- {_plain(sentence)}" for sentence in facts.get("warnings", ()))
    licences = "The terms of these sources hold for what the model repeats of them; their cards name what is known."
    return "\n\n".join(part for part in (table, warnings, licences) if part)


def _results(facts: Mapping[str, Any]) -> str:
    ranks = facts.get("processes", 1)
    device = f"{ranks} x {facts['device']}" if ranks > 1 else facts["device"]
    rows = [
        ("loss at the end", f"{facts['final_loss']:.4f} nats a token, mean of the last tenth of the steps"),
        ("steps", f"{facts['steps']:,}"),
        ("time", f"{duration(facts['seconds'])} ({facts['seconds'] / 3600:,.2f} hours) on {device}"),
        ("speed", f"{facts['tokens_per_second']:,.0f} tokens/s, {facts['precision']}, engine {_engine(facts)}"),
    ]
    if facts.get("mfu") is not None:
        rows.append(("utilisation", f"{facts['mfu']:.1%} of the peak (MFU; {facts['mfu_convention']})"))
    if facts.get("micro_batch"):
        rows.append(("sequences a pass", f"{facts['micro_batch']:,} on each device"))
    return _table(("", ""), [(label, _plain(value)) for label, value in rows], "ll")


def _engine(facts: Mapping[str, Any]) -> str:
    return {"torch": "PyTorch", "deepspeed": "DeepSpeed ZeRO stage 2"}[facts.get("engine", "torch")]


def _validation(variant: Variant, validations: Sequence[Mapping[str, Any]]) -> str:
    if not validations:
        return ""
    last = validations[-1]
    rows = [
        (
            _TITLES[source],
            f"{loss:.4f}",
            f"{bits:.4f}" if (bits := last.get("bits_per_byte", {}).get(source)) is not None else "",
            "yes" if variant.mixture.get(source) else "no",
        )
        for source, loss in last["losses"].items()
    ]
    table = _table(("held-out text", "nats a token", "bits a byte", "trained on its source"), rows, "lrrl")
    return f"Held-out loss after step {last['step']:,}:\n\n{table}"


def _incidents(facts: Mapping[str, Any], incidents: Sequence[Mapping[str, Any]]) -> str:
    skipped = facts.get("skipped_steps", 0)
    told = [f"Skipped steps, whose loss or gradient was not finite: {skipped:,}."] if skipped else []
    if incidents:
        told.append(f"Training went back to a checkpoint {len(incidents):,} time{'s' * (len(incidents) > 1)}:")
    if not told:
        return "No step was skipped, and training never went back to a checkpoint."
    sentences = [f"- {_plain(str(each['sentence']))}" for each in incidents[:_MOST_INCIDENTS]]
    if len(incidents) > _MOST_INCIDENTS:
        sentences.append(f"- and {len(incidents) - _MOST_INCIDENTS:,} more (`incidents.jsonl`)")
    return "\n\n".join(part for part in (" ".join(told), "\n".join(sentences)) if part)


def _settings(recipe: Recipe) -> str:
    train, model = recipe.train, recipe.model
    batch = f"{train.batch_tokens:,} tokens: {train.batch_tokens // model.context:,} sequences of {model.context:,}"
    rows = [
        ("model", f"{model.layers} layers, {model.heads} heads of {model.head_dimension}, width {model.width:,}"),
        ("tokenizer", f"{recipe.tokenizer.kind}, {recipe.tokenizer.vocabulary_size:,} tokens"),
        ("batch", batch),
        ("optimiser", f"AdamW, betas {train.beta1:g} and {train.beta2:g}, epsilon {train.epsilon:g}"),
        ("learning rate", schedule_in_words(train, train.tokens // train.batch_tokens)),
        ("weight decay", f"{train.weight_decay:g}, on matrices"),
        ("gradient clipping", "none" if train.gradient_clip is None else f"norm {train.gradient_clip:g}"),
        ("dropout", f"{model.dropout:g}"),
        ("attention", "within a document" if train.mask_documents else "over all documents of a sequence"),
        ("seed", str(recipe.seed)),
    ]
    whole = {
        "seed": recipe.seed,
        "tokenizer": recipe.tokenizer.model_dump(mode="json"),
        "model": model.model_dump(mode="json"),
        "train": train.model_dump(mode="json", exclude=_WATCHED),
    }
    text = yaml.safe_dump(whole, sort_keys=False, default_flow_style=None, width=100)
    table = _table(("", ""), [(label, _plain(value)) for label, value in rows], "ll")
    return f"{table}\n\nAll of them, as a recipe has them:\n\n{_fenced(text, 'yaml')}"


def _completions(completions: Sequence[Mapping[str, Any]]) -> str:
    if not completions:
        return "None were recorded."
    last = max(row["step"] for row in completions)
    shown = [row for row in completions if row["step"] == last]
    blocks = [f"Prompt and continuation:\n\n{_fenced(row['prompt'])}\n\n{_fenced(row['text'])}" for row in shown]
    return "\n\n".join([f"After step {last:,}, always the likeliest token; not chosen.", *blocks])


def _again(facts: Mapping[str, Any]) -> str:
    ranks = facts.get("processes", 1)
    processes = f" --processes {ranks}" if ranks > 1 else ""
    return f"""\
The whole recipe, with every default spelled out, is `recipe.yaml` of the run folder:

```sh
primer synth recipe.yaml
primer train recipe.yaml{processes}
```

The same corpora, software, device and number of processes give the same model; `manifest.json` names the software."""


def _table(names: Sequence[str], rows: Sequence[Sequence[str]], sides: str) -> str:
    """A Markdown table; its cells are escaped already. `sides` has an `l` or `r` for each column."""
    rule = ["---:" if side == "r" else "---" for side in sides]
    return "\n".join(f"| {' | '.join(row)} |" for row in (names, rule, *rows))


def _fenced(text: str, language: str = "text") -> str:
    """A text in a block that it cannot end, with what is not printed as its code."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    shown = visible(text, kept="\n\t").rstrip("\n")
    return f"{fence}{language}\n{shown}\n{fence}"


def _plain(text: str) -> str:
    """Text as one line that neither Markdown nor HTML takes for more."""
    return _MARKDOWN.sub(r"\\\1", html.escape(visible(" ".join(text.split())), quote=False))
