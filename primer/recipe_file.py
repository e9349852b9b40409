"""Reading recipes: YAML with `extends:`, `--set key=value` overrides, and errors that name the key."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from primer.errors import PrimerError
from primer.recipe import Recipe
from primer.section import Section


class _Loader(yaml.SafeLoader):
    """YAML as people mean it: `2e-4` is a number, and a key given twice is an error."""


class _Dumper(yaml.SafeDumper):
    """Writes what `_Loader` reads back: text that looks like `2e-4` is quoted."""


# YAML 1.1 as PyYAML reads it wants a dot in a float, so `lr: 2e-4` would arrive as text.
for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(?:\d[\d_]*)(?:\.\d*)?[eE][-+]?\d+$"),
        list("-+0123456789"),
    )


def _mapping_without_repeats(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node)
        if isinstance(key, list | dict):
            raise yaml.constructor.ConstructorError(None, None, "a key must be plain text", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", key_node.start_mark)
        seen.add(key)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping_without_repeats)


def load_recipe(path: Path | None, overrides: Sequence[str] = ()) -> Recipe:
    """Read, inherit, override and validate a recipe.

    Args:
        path: A YAML file; `extends:` in it names another, relative to it. None means a recipe of defaults alone.
        overrides: `dotted.key=value` strings; values are read as YAML.

    Raises:
        PrimerError: If a file cannot be read or the result is not a valid recipe. The message names the
            file, the key, the value and what was expected.
    """
    data = _read_with_parents(path, ()) if path else {"name": "default"}
    for override in overrides:
        key, value = _parse_override(override)
        _set_key(data, key, value, override)
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        problems = "\n".join(f"  {_explain(detail)}" for detail in error.errors())
        raise PrimerError(
            f"{path or 'The recipe of defaults'} is not a valid recipe:\n{problems}",
            "`primer recipe --fields` lists every key with its meaning and default.",
        ) from None


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as YAML that `load_recipe` reads back to an equal recipe."""
    data = recipe.model_dump(mode="json")
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def describe_fields() -> Iterator[tuple[str, str, str, str]]:
    """Every key of a recipe as (dotted key, type, default, meaning), in the order of the schema."""
    yield from _describe_section(Recipe, "")


def _read_with_parents(path: Path, children: tuple[Path, ...]) -> dict[str, Any]:
    resolved = path.resolve()
    if resolved in children:
        chain = " -> ".join(str(p) for p in (*children, resolved))
        raise PrimerError(f"{path}: `extends` goes in a circle: {chain}", "Remove one of the `extends` lines.")
    data = _read_yaml(path)
    parent = data.pop("extends", None)
    if parent is None:
        return data
    if not isinstance(parent, str):
        raise PrimerError(f"{path}: extends is {parent!r}; expected a file name.", "Name one recipe file.")
    base = _read_with_parents(path.parent / parent, (*children, resolved))
    return _merge(base, data)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise PrimerError(f"There is no recipe {str(path)!r}.", _nearby_recipes(path)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise PrimerError(f"{path} cannot be read: {error}", "Give the path of a YAML file in UTF-8.") from None
    try:
        data = yaml.load(text, Loader=_Loader)  # noqa: S506 - a subclass of SafeLoader
    except yaml.YAMLError as error:
        raise PrimerError(f"{path} is not valid YAML: {error}", "Mend the line that the message names.") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise PrimerError(
            f"{path} holds a {type(data).__name__}, not a table of keys.", "A recipe is `key: value` lines."
        )
    return data


def _nearby_recipes(path: Path) -> str:
    folder = path.parent if path.parent.is_dir() else Path("recipes")
    names = sorted(str(p) for p in folder.glob("*.yaml"))
    if not names:
        return "Give the path of a recipe, such as recipes/demo.yaml."
    close = difflib.get_close_matches(str(path), names, n=1)
    return f"Did you mean {close[0]}? " * bool(close) + f"Recipes here: {', '.join(names)}."


def _merge(base: Mapping[str, Any], child: Mapping[str, Any]) -> dict[str, Any]:
    """`child` over `base`: tables are merged key by key, lists and values replaced.

    A table whose `kind` changes is replaced whole: the keys of one kind mean nothing to another.
    """
    merged = dict(base)
    for key, value in child.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict) and old.get("kind") == value.get("kind", old.get("kind")):
            merged[key] = _merge(old, value)
        else:
            merged[key] = value
    return merged


def _parse_override(override: str) -> tuple[list[str], Any]:
    key, equals, value = override.partition("=")
    if not equals or not key.strip():
        raise PrimerError(f"--set {override!r} is not of the form key=value.", "Write, say, --set train.tokens=100000.")
    try:
        return key.strip().split("."), yaml.load(value, Loader=_Loader)  # noqa: S506 - a subclass of SafeLoader
    except yaml.YAMLError as error:
        raise PrimerError(f"--set {override!r}: the value is not valid YAML: {error}", "Quote the value.") from None


def _set_key(data: dict[str, Any], key: list[str], value: Any, override: str) -> None:
    table = data
    for part in key[:-1]:
        inner = table.setdefault(part, {})
        if not isinstance(inner, dict):
            raise PrimerError(
                f"--set {override!r}: {part!r} is {inner!r}, not a table.",
                "Name a key that exists, or give the whole list as YAML: --set 'eval.suites=[science, social]'.",
            )
        table = inner
    table[key[-1]] = value


def _explain(detail: ErrorDetails) -> str:
    """One validation error as `key: value; expected ...`."""
    # Discriminated unions put the chosen kind into the location; people did not write it there.
    kinds = set(re.findall(r"\[(\w+)\]", " ".join(key for key, *_ in describe_fields())))
    place = [str(part) for part in detail["loc"]]
    parts = [part for part in place if part not in kinds]
    key = ".".join(parts) or "recipe"
    if detail["type"] == "extra_forbidden":
        return f"{key}: unknown key.{_suggest_key(place, kinds)}"
    if detail["type"] in ("missing", "union_tag_not_found"):
        return f"{key}{'.kind' * (detail['type'] != 'missing')}: is missing."
    if detail["type"] == "union_tag_invalid":
        return f"{key}.kind: is {detail['ctx']['tag']!r}; expected one of {detail['ctx']['expected_tags']}."
    if detail["type"] == "value_error":
        return f"{key}: {detail['ctx']['error']!s}."
    value = repr(detail["input"])
    shown = value if len(value) <= 60 else value[:57] + "..."
    return f"{key}: is {shown}; {detail['msg'][0].lower()}{detail['msg'][1:]}."


def _suggest_key(place: list[str], kinds: set[str]) -> str:
    """The key of the same table, and of its kind, that was probably meant, or all of its keys."""
    tables = [part for part in place[:-1] if not part.isdigit()]
    known = [re.sub(r"\[(\w+)\]", r".\1", key).replace("[]", "").split(".") for key, *_ in describe_fields()]
    siblings = list(dict.fromkeys(key[len(tables)] for key in known if key[: len(tables)] == tables))
    table = ".".join(part for part in tables if part not in kinds)
    close = difflib.get_close_matches(place[-1], [key for key in siblings if key != place[-1]], n=1)
    if close:
        return f" Did you mean {f'{table}.' if table else ''}{close[0]}?"
    kind = f" of the kind {tables[-1]}" if tables and tables[-1] in kinds else ""
    return f" Keys of {table or 'a recipe'}{kind}: {', '.join(siblings)}." if siblings else ""


def _describe_section(section: type[Section], prefix: str) -> Iterator[tuple[str, str, str, str]]:
    for name, field in section.model_fields.items():
        key = f"{prefix}{name}"
        inner = _sections_in(field.annotation)
        if not inner:
            yield key, _type_name(field), _default(field), field.description or ""
        elif len(inner) == 1 and inner[0] is field.annotation:
            yield from _describe_section(inner[0], f"{key}.")
        else:
            for option in inner:
                kind = option.model_fields.get("kind")
                label = f"[{get_args(kind.annotation)[0]}]" if kind else "[]"
                yield from _describe_section(option, f"{key}{label}.")


def _sections_in(annotation: Any) -> list[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation] if issubclass(annotation, Section) else []
    return [section for argument in get_args(annotation) for section in _sections_in(argument)]


def _type_name(field: FieldInfo) -> str:
    annotation = field.annotation
    choices = get_args(annotation)
    if choices and all(isinstance(choice, str) for choice in choices):
        return " | ".join(choices)
    if isinstance(annotation, type):
        return annotation.__name__
    return re.sub(r"Annotated\[(\w+).*?\]\)?\]|typing\.|primer\.recipe\.", r"\1", str(annotation))


def _default(field: FieldInfo) -> str:
    return "(required)" if field.is_required() else repr(field.get_default(call_default_factory=True))
