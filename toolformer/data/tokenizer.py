"""In: texts of a corpus. Out: a small byte-level BPE tokenizer with ChatML's marks, trained in seconds.

Words, digits, punctuation and spaces are kept apart, so that a value is spelled with the same tokens in the request and
in the call: copying is then one step of attention. Digits stand alone for the same reason.
"""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from toolformer.data.prompts import CHATML, MARKS

PIECES = {
    "isolated": r"\d|[^\W\d_]+|[^\w\s]+|_| +|\s",  # a space is a piece of its own
    "prefix": r" ?[^\W\d_]+|\d| ?[^\w\s]+|_| +|\s",  # a space belongs to the word behind it, as in GPT-2
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
