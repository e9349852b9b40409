"""The licence of a folder of source code, where its licence file is one of the common texts."""

from __future__ import annotations

import re
from pathlib import Path

_LICENCE_FILE = re.compile(r"(licen[cs]e|copying|unlicense)([-_.][\w-]+)?(\.(txt|md|rst))?", re.I)
_LONGEST = 100_000  # characters; the GPL has 35,000

# Sentences that only one licence has, by its SPDX name; white space and case do not count.
_SENTENCES = {
    "MIT": r"permission is hereby granted, free of charge, to any person obtaining a copy.*the above copyright notice",
    "Apache-2.0": r"terms and conditions for use, reproduction, and distribution.*apache license"
    r"|^(copyright .{0,200})?(licensed under the )?apache license,? version 2\.0",
    "BSD-3-Clause": r"redistribution and use in source and binary forms(?!.*advertising materials).*neither the name",
    "BSD-2-Clause": r"redistribution and use in source and binary forms(?!.*(neither the name|advertising materials))",
    "ISC": r"permission to use, copy, modify,? and(/or)? distribute this software .*provided that the above copyright",
    "Unlicense": r"this is free and unencumbered software released into the public domain",
    "CC0-1.0": r"cc0 1\.0 universal",
    "MPL-2.0": r"^mozilla public license,? version 2\.0",
    "AGPL-3.0": r"^(the )?gnu affero general public license version 3",
    "LGPL-3.0": r"^(the )?gnu lesser general public license version 3",
    "LGPL-2.1": r"^(the )?gnu lesser general public license version 2\.1",
    "GPL-3.0": r"^(the )?gnu general public license version 3",
    "GPL-2.0": r"^(the )?gnu general public license version 2",
    "PSF-2.0": r"python software foundation license version 2",
}


# What takes back what such a sentence grants; a person has to read that.
_CONDITIONS = re.compile(
    r"commons clause|non-?commercial|for good, not evil|elastic license|server side public"
    r"|all rights reserved\. no part"
)


def licence_of(folder: Path) -> str | None:
    """The SPDX name of the licence that a folder's licence files state, None unless all state the same one.

    Where a project can be had under several licences, or carries the notices of others, a person has to read them.

    Raises:
        OSError: If the folder or a licence file cannot be read.
    """
    files = [p for p in folder.iterdir() if _LICENCE_FILE.fullmatch(p.name) and p.is_file() and not p.is_symlink()]
    found = [_named(path.read_text(encoding="utf-8", errors="replace")[:_LONGEST]) for path in files]
    names = found[0] if found and all(each == found[0] for each in found) else set()
    return next(iter(names)) if len(names) == 1 else None


def _named(text: str) -> set[str]:
    """The licences whose sentences a text has."""
    plain = " ".join(text.lower().split())
    if _CONDITIONS.search(plain):
        return set()
    return {name for name, sentence in _SENTENCES.items() if re.search(sentence, plain)}
