"""Ids that no seed has any more: provenance of old corpora names them, so none is ever used again."""

from __future__ import annotations

from pathlib import Path

from primer.errors import PrimerError

RETIRED = Path(__file__).parent / "retired.tsv"
_HEADER = "id\ttitle\treason"


def retired_ids(path: Path = RETIRED) -> dict[str, str]:
    """Retired ids of the built-in list, and the titles they had.

    Raises:
        PrimerError: If the file cannot be read, or a line is not an id, a title and a reason.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise PrimerError(f"{path} cannot be read: {error}", "Install Primer again, or restore the file.") from None
    if not lines or lines[0] != _HEADER:
        raise PrimerError(f"{path}, line 1: the header is not id, title, reason.", "Restore the file.")
    retired: dict[str, str] = {}
    for number, line in enumerate(lines[1:], start=2):
        parts = line.split("\t")
        if len(parts) != 3 or not all(parts) or "-" not in parts[0] or parts[0] in retired:
            raise PrimerError(
                f"{path}, line {number}: is {line!r}.", "Write an id, its title and a reason, separated by tabs, once."
            )
        retired[parts[0]] = parts[1]
    return retired
