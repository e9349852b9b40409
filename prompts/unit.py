"""One piece of work for a teacher: what was drawn for it, and the prompts that it is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from prompts.forms import Form
from prompts.passages import Snippet
from prompts.wording import Wording
from topics.seeds import Topic


@dataclass(frozen=True, slots=True)
class Unit:
    """One piece of work for a teacher, with everything it was made from.

    Attributes:
        index: Its number in the stream.
        topic: The topic seed.
        form: Name of the template.
        audience: Name of the audience.
        level: The school level the reader is at; one that both the topic and the audience have.
        length: Name of the length.
        register: Name of the register.
        language: Name of the language.
        required_words: Words that the text must contain; may be empty.
        snippet: The passage it carries, if any.
        seed: For the teacher's sampler, 31 bits.
    """

    index: int
    topic: Topic
    form: str
    audience: str
    level: str
    length: str
    register: str
    language: str
    required_words: tuple[str, ...]
    snippet: Snippet | None
    seed: int
    _form: Form = field(repr=False, compare=False)
    _names: Mapping[str, str] = field(repr=False, compare=False)
    _wording: Wording = field(repr=False, compare=False)

    @property
    def steps(self) -> int:
        """How many prompts it takes."""
        return len(self._form.steps)

    @property
    def kept(self) -> tuple[bool, ...]:
        """For each step, whether its reply is a part of the document."""
        return tuple(step.keep for step in self._form.steps)

    @property
    def words(self) -> int:
        """How many words the first step that is a part of the document asks for."""
        return self._wording.words(next(step for step in self._form.steps if step.keep), self.length)

    def messages(self, replies: Sequence[str] = ()) -> list[dict[str, str]]:
        """The chat messages (`role`, `content`) of the next step.

        Args:
            replies: The texts that the steps before it brought, in order.

        Raises:
            PrimerError: If the form's template fails on these replies.
        """
        step = self._form.steps[len(replies)]
        words = self._wording.words(step, self.length)
        about = {"title": self.topic.title, "subject": self.topic.field.replace("-", " "), "words": words}
        task = self._form.render(len(replies), {**about, **self._names}, replies)
        # The words belong into the document; a plan that knows them makes room for them.
        no_text_yet = not any(earlier.keep for earlier in self._form.steps[: len(replies)])
        system = self._wording.system(self.audience, self.level, self.register, self.language, words, step.keep)
        user = self._wording.user(
            task,
            passage=self.snippet.text if self.snippet and not replies else "",
            required_words=self.required_words if no_text_yet else (),
            language=self.language,
            kept=step.keep,
        )
        return [{"role": "system", "content": system}, {"role": "user", "content": user}]
