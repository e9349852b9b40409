"""The running Python's standard library as a code corpus: whole files, long ones cut at definitions."""

from __future__ import annotations

import ast
import io
import itertools
import platform
import random
import re
import sysconfig
import tokenize
import warnings
from collections.abc import Iterator
from pathlib import Path

from primer.errors import PrimerError
from synth.text import SourceText

LICENCE = "PSF-2.0"

# Tests, applications and tables rather than library code, and whatever else lies below the library's folder.
_SKIPPED_FOLDERS = {
    "test", "tests", "idlelib", "lib2to3", "pydoc_data", "encodings", "site-packages", "dist-packages", "__pycache__",
    "lib-dynload", "ensurepip",
}  # fmt: skip
_SHORTEST, _LONGEST = 1_000, 40_000  # characters of a document
_GENERATED = re.compile(r"\b(auto-?generated|automatically generated|generated (by|and used|with|from))\b", re.I)
# A row of a literal table: a constant or a closing bracket, and a comma or bracket at the end.
_TABLE_ROW = re.compile(r"^\s*+[\[({]*+\s*+(['\"].*|[-\d.x].*|[)\]}][,:)\]}]*)[,:)\]}]\s*(#.*)?$")
_LARGEST_TABLE_SHARE = 0.4


def origin() -> str:
    """What the texts are, for manifests."""
    return f"standard library of {platform.python_implementation()} {platform.python_version()}"


def read_python_library(seed: int, root: Path | None = None) -> Iterator[SourceText]:
    """Library files in an order that the seed shuffles, so that any take is spread over the library.

    Args:
        seed: Seed of the order.
        root: Folder of the library; the running Python's own if None.

    Raises:
        PrimerError: If this Python has no library sources.
    """
    root = root or Path(sysconfig.get_path("stdlib"))
    files = sorted(p for p in root.rglob("*.py") if not _SKIPPED_FOLDERS & set(p.relative_to(root).parts))
    if not files:
        raise PrimerError(
            f"code.source is python_library, but {root} holds no Python source files.",
            "Use a Python that was installed with its library sources, or choose another code.source.",
        )
    random.Random(f"{seed} python library").shuffle(files)
    for path in files:
        name = path.relative_to(root).as_posix()
        try:
            with tokenize.open(path) as file:  # honours a coding cookie
                text = file.read()
        except (OSError, SyntaxError, UnicodeDecodeError) as error:
            raise PrimerError(f"{path} cannot be read: {error}", "Mend the Python installation.") from None
        if len(text) < _SHORTEST or is_table(text):
            continue
        pieces = cut_definitions(text)
        for number, piece in enumerate(pieces, 1):
            title = name if len(pieces) == 1 else f"{name} (part {number} of {len(pieces)})"
            yield SourceText(text=piece, group=name, title=title, origin=f"{origin()}, {name}", licence=LICENCE)


def cut_definitions(text: str, longest: int = _LONGEST) -> list[str]:
    """Source text in pieces of at most `longest` characters, cut before top-level statements.

    A class that is longer alone is cut before its own statements; a single longer function stays whole.
    """
    if len(text) <= longest:
        return [text]
    try:
        with warnings.catch_warnings():  # of odd escapes in what others wrote
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return [text]
    lines = list(io.StringIO(text, newline=""))  # as the parser counts them: a form feed ends none
    blocks = ["".join(lines[a:b]) for a, b in _spans(tree, lines, longest)]
    pieces = [""]
    for block in blocks:
        if pieces[-1] and len(pieces[-1]) + len(block) > longest:
            pieces.append("")
        pieces[-1] += block
    if len(pieces) > 1 and len(pieces[-1]) < _SHORTEST:
        pieces[-2:] = ["".join(pieces[-2:])]
    return pieces


def _spans(tree: ast.Module, lines: list[str], longest: int) -> list[tuple[int, int]]:
    """Line ranges between the places where the text may be cut; together they cover every line."""
    starts = {0}
    for node in tree.body:
        starts.add(_first_line(node, lines))
        long = sum(map(len, lines[node.lineno - 1 : node.end_lineno])) > longest
        if long and isinstance(node, ast.ClassDef):
            starts |= {_first_line(inner, lines) for inner in node.body[1:]}
    cuts = [*sorted(starts), len(lines)]
    return list(itertools.pairwise(cuts))


def _first_line(node: ast.stmt, lines: list[str]) -> int:
    """Index of the line where a statement starts, with its decorators and the comment right above it."""
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    line = min([node.lineno, *(d.lineno for d in decorators)]) - 1
    while line > 0 and lines[line - 1].lstrip().startswith("#"):
        line -= 1
    return line


def is_table(text: str) -> bool:
    """Whether a file is generated or mostly a literal table."""
    lines = text.splitlines()
    if _GENERATED.search("\n".join(lines[:5])):
        return True
    return sum(bool(_TABLE_ROW.match(line)) for line in lines) > _LARGEST_TABLE_SHARE * len(lines)
