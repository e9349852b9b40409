"""What stands around a form's request: reader, style and length above it, a passage and required words beside it."""

from __future__ import annotations

from collections.abc import Sequence

from jinja2 import Template

from prompts.forms import FORMS_FOLDER, Step, compile_template
from prompts.tables import Tables, read_text

# Of English prose with some Markdown, by most tokenizers, with a little to spare.
_TOKENS_A_WORD = 1.4

_SYSTEM_VARIABLES = ("reader", "writing", "register", "words", "language", "openers", "kept")
_USER_VARIABLES = ("passage", "task", "required_words", "language", "kept")


class Wording:
    """Puts the messages of a prompt together.

    Args:
        tables: Readers and styles.
        max_tokens: What a reply may hold.
    """

    def __init__(self, tables: Tables, max_tokens: int) -> None:
        self._tables, self._most_words = tables, max_tokens / _TOKENS_A_WORD
        self._system, self._user = _template("_system", _SYSTEM_VARIABLES), _template("_user", _USER_VARIABLES)
        self._systems: dict[tuple[str, str, str, str, int, bool], str] = {}

    def words(self, step: Step, length: str) -> int:
        """How many words a step asks for: by its form and the unit's length, and never more than a reply may hold."""
        words = step.words * (self._tables.styles.lengths[length] if step.keep else 1.0)
        # To tens: "about 175 words" would promise an exactness that no teacher has.
        return max(10, int(min(words, self._most_words)) // 10 * 10)

    def system(self, audience: str, level: str, register: str, language: str, words: int, kept: bool) -> str:
        """The instructions that all forms share; `kept` says whether the reply is a part of the document."""
        key = (audience, level, register, language, words, kept)
        if key not in self._systems:  # there are so few different ones that each is rendered once
            styles = self._tables.styles
            text = self._system.render(
                reader=self._tables.levels[level],
                writing=self._tables.audiences[audience].writing,
                register=styles.registers[register],
                words=words,
                language=styles.languages[language],
                openers=[f'"{opener}"' for opener in styles.openers.named],
                kept=kept,
            )
            self._systems[key] = " ".join(text.split())
        return self._systems[key]

    def user(self, task: str, passage: str, required_words: Sequence[str], language: str, kept: bool) -> str:
        """A form's request with what goes before and after it."""
        return self._user.render(
            task=task,
            passage=passage,
            required_words=required_words,
            language=self._tables.styles.languages[language],
            kept=kept,
        ).strip()


def _template(name: str, variables: Sequence[str]) -> Template:
    path = FORMS_FOLDER / f"{name}.j2"
    return compile_template(path, read_text(path), variables)
