"""In: texts of a corpus. Out: a small byte-level BPE tokenizer with ChatML's marks, trained in seconds.

Words, digits, punctuation and spaces are kept apart, so that a value is spelled with the same tokens in the request and
in the call: copying is then one step of attention. Digits stand alone for the same reason.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from toolformer.calls import render
from toolformer.data.loading import RowSource
from toolformer.data.masking import mask_rows
from toolformer.data.prompts import CHATML, MARKS

TYPES = "(?:string|integer|number|boolean|array|object)"
SKELETON = "|".join(  # the fixed words of a JSON Schema and of a call: each becomes one token
    [
        r'\{"name": "',
        r'", "description": "',
        r'\.?", "parameters": \{"type": "object", "properties": \{"?',
        rf'": \{{"type": "{TYPES}"(?:, "description": "|, "enum": \["|, "items": \{{"type": "{TYPES}"\}}'
        r'(?:, "description": ")?)?',
        r'"\}, "',
        r'"\}\}, "required": \["',
        r'"\]\}\}',
        r'", "arguments": \{"?',
        r'", "default": "?',
        r'"?\}\}\n?',
        r'": "',
        r'": \["',
        r'": \[?',
        r'", "',
        r', "',
        r'"\]',
    ]
)
PIECES = {
    "isolated": rf"{SKELETON}|\d|[^\W\d_]+|[^\w\s]|_| +|\s",  # a space is a piece of its own
    "prefix": rf"{SKELETON}| ?[^\W\d_]+|\d| ?[^\w\s]|_| +|\s",  # a space belongs to the word behind it, as in GPT-2
}


def train_tokenizer(texts: Iterable[str], *, vocab_size: int = 2048, spaces: str = "isolated"):
    """Byte-level BPE on ``texts``; ``spaces`` is a key of ``PIECES``."""
    if spaces not in PIECES:
        raise ValueError(f"tokenizer.spaces is {spaces!r}; use one of {', '.join(PIECES)}")
    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.NFC()
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES[spaces]), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|endoftext|>", *MARKS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHATML,
        clean_up_tokenization_spaces=False,
    )


def from_rows(source: RowSource, *, vocab_size: int = 2048, spaces: str = "isolated", rows: int = 2000):
    """A tokenizer trained on what the source's training rows say: requests, answers, schemas, masked names."""
    texts: dict[str, None] = {}
    for step in range(rows // 32):
        batch = source.batch(step, batch_size=32, pool_size=24, tools_per_request=8)
        for example, tools in mask_rows(batch, 0.3, random.Random(step)):
            texts.update(dict.fromkeys(message.content for message in example.messages))
            calls = example.calls if example.draft is None else [example.draft]
            texts[render(calls) if calls else example.reply] = None
            texts.update(dict.fromkeys(tool.text for tool in tools))
    return train_tokenizer(texts, vocab_size=vocab_size, spaces=spaces)
