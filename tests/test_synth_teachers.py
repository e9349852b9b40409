"""Teachers: what they send, what their failures say, and that nothing of theirs is left running."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mock_endpoint import Faults, running

from primer.errors import PrimerError
from primer.recipe_synth import EmbeddedTeacher, EndpointTeacher, Sampling, Synth, Teacher, VllmTeacher
from synth import embedded
from synth.journal import Reply
from synth.pool import Pool
from synth.teachers import open_teacher, teacher_identity

MESSAGES = [{"role": "user", "content": "Name a colour and say where one sees it."}]


def endpoint(address: str, model: str = "mock") -> EndpointTeacher:
    return EndpointTeacher(kind="openai", base_url=address, model=model, api_key_env="PRIMER_TEST_KEY")


def ask(teacher: Teacher, sampling: Sampling | None = None, seeds: tuple[int, ...] = (1,)) -> list[Reply]:
    async def asked() -> list[Reply]:
        async with open_teacher(Synth(teacher=teacher, concurrency=4, timeout=30.0)) as client:
            return await asyncio.gather(*(one(client, seed) for seed in seeds))

    async def one(client: Pool, seed: int) -> Reply:
        return await client.complete(MESSAGES, sampling or Sampling(), seed)

    return asyncio.run(asked())


def test_an_endpoint_gets_standard_fields_and_the_key(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PRIMER_TEST_KEY", "sk-secret")
    with running(Faults(key="sk-secret")) as mock:
        replies = ask(endpoint(mock.address), Sampling(temperature=0.5, frequency_penalty=0.25), (3,))
        assert mock.bodies == [
            {
                "model": "mock",
                "messages": MESSAGES,
                "temperature": 0.5,
                "top_p": 0.95,
                "seed": 3,
                "max_tokens": 1000,
                "frequency_penalty": 0.25,
            }
        ]
    assert (replies[0].finish_reason, replies[0].prompt_tokens) == ("stop", 9)
    assert replies[0].completion_tokens == len(replies[0].text.split())


def test_a_local_endpoint_needs_no_key_and_openai_does(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("PRIMER_TEST_KEY", raising=False)
    with running() as mock:
        assert ask(endpoint(mock.address))[0].text
    with pytest.raises(PrimerError, match="PRIMER_TEST_KEY is not set"):
        ask(endpoint("https://api.openai.com/v1"))
    with running(Faults(key="wanted")) as mock, pytest.raises(PrimerError, match="PRIMER_TEST_KEY is not set"):
        ask(endpoint(mock.address))


def test_newer_models_get_the_newer_name_of_the_limit():
    with running(Faults(new_limit_name=True)) as mock:
        assert len(ask(endpoint(mock.address), seeds=(1, 2))) == 2
        assert [body.get("max_completion_tokens") for body in mock.bodies][-1] == 1000


def test_an_unreachable_endpoint_is_named():
    started = time.monotonic()
    with pytest.raises(PrimerError, match=r"http://127.0.0.1:9/v1 cannot be reached"):
        ask(endpoint("http://127.0.0.1:9/v1"))
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    "address", ["api.openai.com/v1", "ftp://host/v1", "https://user:pw@host/v1", "https://host/v1?api-key=secret"]
)
def test_an_address_that_is_none_or_holds_a_secret_is_refused(address: str):
    with pytest.raises(ValueError, match="base_url") as error:
        endpoint(address)
    assert "secret" not in str(error.value)
    assert "pw" not in str(error.value)


@pytest.mark.parametrize("kind", ["html", "no choices", "choices of another kind"])
def test_an_endpoint_that_speaks_another_language_is_told_so(kind: str, monkeypatch: pytest.MonkeyPatch):
    with running(Faults(garbage="colour")) as mock:
        if kind != "html":
            body = {} if kind == "no choices" else {"choices": [{"message": {"content": 5}}]}
            monkeypatch.setattr("mock_endpoint.completion", lambda _answer, _body: body)
            mock.faults.garbage = None
        with pytest.raises(PrimerError, match="does not answer in OpenAI's format"):
            ask(endpoint(mock.address))


def test_what_an_answer_depends_on_is_in_the_identity(tmp_path: Path):
    model = tmp_path / "a.gguf"
    model.write_bytes(b"GGUF 1")
    first = teacher_identity(EmbeddedTeacher(model=str(model)))
    assert teacher_identity(EmbeddedTeacher(model=str(model), threads=1)) == first
    assert teacher_identity(EmbeddedTeacher(model=str(model), context=512)) != first
    model.write_bytes(b"GGUF 2")
    assert teacher_identity(EmbeddedTeacher(model=str(model))) != first
    assert teacher_identity(endpoint("http://a/v1")) != teacher_identity(endpoint("http://b/v1"))
    assert teacher_identity(endpoint("http://a/v1")) == teacher_identity(endpoint("http://a/v1/"))
    assert teacher_identity(VllmTeacher(kind="vllm", model="some/m")) != teacher_identity(
        VllmTeacher(kind="vllm", model="some/m", arguments=["--quantization", "fp8"])
    )


def test_a_missing_or_broken_model_file_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(PrimerError, match="there is no such file"):
        teacher_identity(EmbeddedTeacher(model=str(tmp_path / "none.gguf")))
    (tmp_path / "text.gguf").write_text("not a model")
    with pytest.raises(PrimerError, match="is not a GGUF file"):
        teacher_identity(EmbeddedTeacher(model=str(tmp_path / "text.gguf")))
    monkeypatch.setitem(embedded.PACKAGED, "smollm2-135m-instruct", "no_such_package")
    with pytest.raises(PrimerError, match="make setup"):
        teacher_identity(EmbeddedTeacher())


def test_llama_cpp_says_why_it_cannot_load_a_model(tmp_path: Path):
    model = tmp_path / "short.gguf"
    model.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(PrimerError, match=r"llama\.cpp could not load") as error:
        ask(EmbeddedTeacher(model=str(model)))
    assert "gguf" in error.value.problem.split(": ", 1)[1].lower()


def test_the_embedded_teacher_answers_quietly():
    script = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from test_synth_teachers import *\n"
        "for r in ask(EmbeddedTeacher(threads=1), Sampling(max_tokens=20), (1, 2)): print(r)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    replies = [eval(line, {"Reply": Reply}) for line in done.stdout.splitlines()]
    assert len(replies) == 2
    assert len({reply.text for reply in replies}) == 2  # the seed counts
    assert all(reply.completion_tokens <= 20 for reply in replies)
    assert all(reply.prompt_tokens > 9 for reply in replies)
    assert any(reply.finish_reason == "length" for reply in replies)
    assert done.stderr == ""
