"""Token shards of random ids, in the trainer's own format: data for measuring speed, which no content changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from primer.recipe import SourceName
from train.encoder import Encoded, id_type
from train.mixture import Mixture
from train.shards import Shard, write_encoded
from train.tokenizer import tokenizer_hash

_SOURCE: SourceName = "synthetic"
_MEAN_DOCUMENT = 600  # tokens


def random_mixture(folder: Path, vocabulary: int, context: int, sequences: int) -> Mixture:
    """Write a shard of random documents and open it as a variant's data; longer trainings see it again.

    Args:
        folder: Where to write; exists.
        vocabulary: Ids are below this.
        context: Tokens of a sequence.
        sequences: How many different ones.
    """
    generator = np.random.default_rng(0)
    count = sequences * context + 1
    ends = np.cumsum(1 + generator.exponential(_MEAN_DOCUMENT, 2 * count // _MEAN_DOCUMENT + 100).astype(np.int64))
    lengths = np.diff(np.append(ends[ends < count], count), prepend=0)
    tokenizer = Tokenizer(WordLevel({str(token): token for token in range(vocabulary)}))
    ids = generator.integers(0, vocabulary, count).astype(id_type(tokenizer).newbyteorder("<"))
    write_encoded(folder, _SOURCE, [Encoded(ids.tobytes(), lengths, 4 * count)], tokenizer)
    shards = {_SOURCE: Shard(folder, _SOURCE, tokenizer_hash(tokenizer))}
    return Mixture(shards, {_SOURCE: sequences}, context, seed=0)
