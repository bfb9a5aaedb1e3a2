"""Short messages as people write them, made up here: the same ones for every server and every run."""

import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

_WORDS: Final = """
the a my your this that some every one two three morning evening today tomorrow later soon never again always
coffee garden river music book train window market friend sister neighbour teacher doctor player singer writer
goes takes makes finds loses likes hates wants needs shows sells buys reads plays brings keeps calls asks tells
good bad long short quiet loud blue green cold warm open closed early late cheap lovely awful strange simple
and or but because when while before after with without under over near far about against between through
"""
_MESSAGES: Final = 512


def messages(count: int = _MESSAGES, *, seed: int = 7) -> list[str]:
    """Return texts of 6 to 18 words, one in eight with a number or a link."""
    chance, known = random.Random(seed), _WORDS.split()
    texts = []
    for index in range(count):
        words = chance.choices(known, k=chance.randint(6, 18))
        if index % 8 == 0:
            words.append(chance.choice(["https://example.com/offer", str(chance.randint(2, 99)), "www.example.org"]))
        texts.append(" ".join(words).capitalize() + chance.choice(".!?"))
    return texts


def request(text: str, index: int) -> bytes:
    """Write a text as the JSON body of POST /v1/moderate."""
    author = {"id": f"user-{index}", "age_days": index % 400}
    body = {"content": {"type": "text", "text": text}, "context": {"surface": "comments", "author": author}}
    return json.dumps(body, separators=(",", ":")).encode()


def requests(texts: Sequence[str]) -> list[bytes]:
    """Write each text as a request, each by another author."""
    return [request(text, index) for index, text in enumerate(texts)]


def write_requests(path: Path) -> Path:
    """Write the requests of all messages, one a line."""
    return write_lines(path, requests(messages()))


def batch(requests: Sequence[bytes]) -> bytes:
    """Write requests as the JSON body of POST /v1/moderate/batch."""
    return b'{"items":[' + b",".join(requests) + b"]}"


def write_batches(path: Path, *, items: int) -> Path:
    """Write as many batches as there are messages for, of so many items each, one a line."""
    known = requests(messages())
    whole = range(0, len(known) - items + 1, items)
    return write_lines(path, (batch(known[begin : begin + items]) for begin in whole))


def write_texts(path: Path) -> Path:
    """Write the bare messages, one a line."""
    return write_lines(path, (text.encode() for text in messages()))


def write_lines(path: Path, lines: Iterable[bytes]) -> Path:
    """Write lines, and return where."""
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path
