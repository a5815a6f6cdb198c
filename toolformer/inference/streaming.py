"""In: a function that writes an answer and tells each token. Out: the text of the answer, piece by piece.

The writing goes on in a thread of its own, however slowly the pieces are taken; it ends early where nobody takes them.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Generator, Iterator
from queue import SimpleQueue
from typing import Generic, TypeVar

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

Result = TypeVar("Result")
Told = Callable[[int], None]


class Stream(Generic[Result]):
    """An iterator over pieces of text; ``reply`` is what they came to.

    Args:
        write: writes the answer and calls what it is given with each token of it; what it raises is raised by the
            iterator.
        tokenizer: turns tokens into text; a letter of several tokens comes whole.
    """

    def __init__(self, write: Callable[[Told], Result], tokenizer: Tokenizer):
        self._closed = threading.Event()
        self._pieces = _pieces(write, tokenizer, self._closed)
        self._reply: Result | None = None

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        try:
            return next(self._pieces)
        except StopIteration as end:
            self._reply = self._reply if end.value is None else end.value
            raise

    @property
    def reply(self) -> Result:
        """The whole answer, waited for if need be.

        Raises:
            ValueError: the stream was closed before the answer's end.
        """
        for _ in self:
            pass
        if self._reply is None:
            raise ValueError("the stream was closed before its answer had ended; take all pieces to get the reply")
        return self._reply

    def close(self) -> None:
        """No more pieces are wanted: the writing ends with the token it is at."""
        self._closed.set()
        if (
            inspect.getgeneratorstate(self._pieces) != inspect.GEN_RUNNING
        ):  # else another thread takes the pieces, and sees the end
            self._pieces.close()


class _Unwanted(Exception):
    """Nobody takes the pieces any more."""


def _pieces(
    write: Callable[[Told], Result], tokenizer: Tokenizer, closed: threading.Event
) -> Generator[str, None, Result | None]:
    told: SimpleQueue[int | None] = SimpleQueue()
    ended: list[Result | BaseException] = []

    def tell(token: int) -> None:
        if closed.is_set():
            raise _Unwanted
        told.put(token)

    def work() -> None:
        try:
            ended.append(write(tell))
        except BaseException as error:  # noqa: BLE001  # raised again where the pieces are taken
            ended.append(error)
        told.put(None)

    thread = threading.Thread(target=work, name="stream")
    thread.start()
    try:
        decoder, rest = DecodeStream(skip_special_tokens=False), list[int]()
        while (token := told.get()) is not None:
            piece = decoder.step(tokenizer, token)
            rest = [] if piece else [*rest, token]
            if piece:
                yield piece
        if rest:  # an answer that is cut within a letter
            yield tokenizer.decode(rest, skip_special_tokens=False)
    finally:
        closed.set()
        thread.join()
    if isinstance(ended[0], _Unwanted):
        return None
    if isinstance(ended[0], BaseException):
        raise ended[0]
    return ended[0]
