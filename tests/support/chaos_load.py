"""An open-loop load of mixed questions whose right answers are known, from callers of whom some give up or ask again.

Arrivals are Poisson and wait for nobody. Every question says by its `X-Request-Id` which one it was, so that rows of
the log can be told apart, those too whose callers were gone.
"""

import asyncio
import contextlib
import itertools
import json
import random
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Self
from urllib.parse import urlsplit

from word_model import WORDS

VERDICTS: Final = {"kind": "Allow", "rude": "Review", "vile": "Block"}
"""What the policies say to each word of the model."""
ON_FAILURE: Final = {"": "Review", "strict": "Block", "later": "Allow"}
"""What is said to a tenant's content that needs a model while there is none."""
REMEMBERED: Final = 12
"""So many texts are asked again and again."""
LINKS: Final = "see https://a.example https://b.example https://c.example https://d.example"
_CONNECT_SECONDS: Final = 10.0
_ANSWER_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What one caller asks, once or until it is answered.

    `word` decides what is right, `kind` how that is known: `Rule`, `Model`, or `Remembered` (the model said it before).
    It gives up `gives_up_after` seconds after it has asked, with half of its request sent if it `sends_half`.
    """

    number: int
    kind: str
    text: str
    word: str
    tenant: str = ""
    surface: str = "chat"
    author: str = ""
    priority: str = "Normal"
    deadline_ms: int | None = None
    gives_up_after: float | None = None
    sends_half: bool = False
    is_retried: bool = False

    @property
    def verdict(self) -> str:
        """What is right."""
        if self.kind == "Rule":
            return "Review" if self.word == "links" else "Allow"
        return VERDICTS[self.word]

    @property
    def score(self) -> float | None:
        """What the model says of it; None where it is not asked."""
        return None if self.kind == "Rule" else WORDS[self.word] / 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What came of asking once: the status (0: nobody waited for it, or the connection failed, as `failed` says)."""

    question: Question
    request_id: str
    begun: float
    ended: float
    status: int = 0
    failed: str = ""
    body: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_degraded(self) -> bool:
        """Whether the model was missing."""
        return "words" in self.body.get("degraded", ())

    def __str__(self) -> str:
        return f"{self.request_id} {self.question.kind} {self.question.text!r}: {self.status} {self.failed}{self.body}"


class Questions:
    """Makes up questions; the same seed makes up the same ones."""

    def __init__(self, seed: int, *, first: int = 0) -> None:
        """`first` is the number of the first one: of two that make them up, none may be of both."""
        self._chance = random.Random(seed)
        self._numbers = itertools.count(first)

    def next(self) -> Question:
        """Return one of any kind, from any caller."""
        chance = self._chance
        word = chance.choice(list(VERDICTS))
        common = {
            "tenant": chance.choice(["", "", "strict", "later"]),
            "priority": chance.choice(["Low", "Normal", "High", "Critical"]),
            "author": f"author-{chance.randrange(20)}",
        }
        draw = chance.random()
        if draw < 0.25:
            return replace(self.remembered(chance.randrange(REMEMBERED)), **common)
        number = next(self._numbers)
        if draw < 0.4:
            word = chance.choice(["links", "none"])
            text = f"{LINKS if word == 'links' else 'words'} {number}"
            return Question(kind="Rule", text=text, word=word, surface="links", number=number, **common)
        asked = Question(kind="Model", text=f"{word} words {number}", word=word, number=number, **common)
        draw = chance.random()
        if draw < 0.15:
            return replace(asked, gives_up_after=chance.uniform(0, 0.03), sends_half=chance.random() < 0.3)
        if draw < 0.25:
            return replace(asked, deadline_ms=chance.choice([5, 50, 300]))
        if draw < 0.45:
            return replace(asked, is_retried=True)
        return asked

    def remembered(self, place: int) -> Question:
        """Return a question that comes again and again."""
        word, number = list(VERDICTS)[place % len(VERDICTS)], next(self._numbers)
        text = f"{word} words again {place}"
        return Question(number=number, kind="Remembered", text=text, word=word, surface="comments")

    def giving_up(self, count: int, *, within_seconds: float) -> Sequence[Question]:
        """Return questions of callers of whom all give up."""
        return [
            Question(
                number=(number := next(self._numbers)),
                kind="Model",
                text=f"kind words {number}",
                word="kind",
                gives_up_after=self._chance.uniform(0, within_seconds),
                sends_half=self._chance.random() < 0.2,
            )
            for _ in range(count)
        ]


class ChaosLoad:
    """Asks `questions` at `rate` a second from the begin of the block to its end, which waits for the last answers."""

    def __init__(self, url: str, questions: Questions, *, rate: float, headers: Mapping[str, str], seed: int) -> None:
        address = urlsplit(url)
        self._host, self._port = address.hostname, address.port
        self._questions = questions
        self._rate = rate
        self._headers = dict(headers)
        self._chance = random.Random(seed)
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._ending = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),), daemon=True)
        self._crowds: list[asyncio.Task[None]] = []
        self.asked: list[Asked] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._ending.set)
        self._thread.join(3 * _ANSWER_SECONDS)
        assert not self._thread.is_alive(), "callers wait for their answers for ever"
        self._loop.close()

    def ask_all(self, questions: Sequence[Question], *, at_once: int) -> None:
        """Have a crowd ask beside all others, so many at a time, and return once each was answered or has given up."""
        asyncio.run_coroutine_threadsafe(self._crowd(questions, at_once), self._loop).result(3 * _ANSWER_SECONDS)

    def since(self, begun: float) -> Iterator[Asked]:
        """Yield what was asked since a moment (monotonic seconds) and has come to its end."""
        return (each for each in list(self.asked) if each.begun >= begun)

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            while not self._ending.is_set():
                group.create_task(self._ask(self._questions.next()))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._ending.wait(), self._chance.expovariate(self._rate))
        for _, writer in self._idle:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _crowd(self, questions: Sequence[Question], at_once: int) -> None:
        places = asyncio.Semaphore(at_once)

        async def ask(question: Question) -> None:
            async with places:
                await self._ask(question)

        await asyncio.gather(*map(ask, questions))

    async def _ask(self, question: Question) -> None:
        """Ask, and again with the same key as long as there is no decision, if it is one that is retried."""
        for attempt in itertools.count():
            asked = await self._ask_once(question, f"chaos-{question.number}-{attempt}")
            self.asked.append(asked)
            if not question.is_retried or asked.status not in (429, 503, 504) or self._ending.is_set():
                return
            wait = min(float(asked.headers.get("retry-after", 1)), 1) * self._chance.uniform(0.2, 1)
            await asyncio.sleep(wait)

    async def _ask_once(self, question: Question, request_id: str) -> Asked:
        begun = time.monotonic()
        so_far = Asked(question=question, request_id=request_id, begun=begun, ended=begun)
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                answered = await self._exchange(question, so_far)
        except (OSError, EOFError, TimeoutError) as failed:
            answered = replace(so_far, failed=repr(failed))
        return replace(answered, ended=time.monotonic())

    async def _exchange(self, question: Question, asked: Asked) -> Asked:
        reader, writer = await self._connect()
        try:
            request = self._request(question, asked.request_id)
            writer.write(request[: len(request) // 2] if question.sends_half else request)
            if question.gives_up_after is not None:
                await asyncio.sleep(question.gives_up_after)
                return replace(asked, failed="gave up")
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:-2])}
            body = await reader.readexactly(int(headers["content-length"]))
        except BaseException:
            writer.transport.abort()
            raise
        finally:
            if question.gives_up_after is not None:
                writer.transport.abort()
        self._idle.append((reader, writer))
        return replace(asked, status=int(head[0].split(" ")[1]), body=json.loads(body), headers=headers)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._idle:
            return self._idle.pop()
        async with asyncio.timeout(_CONNECT_SECONDS):
            return await asyncio.open_connection(self._host, self._port)

    def _request(self, question: Question, request_id: str) -> bytes:
        context: dict[str, Any] = {"surface": question.surface, "author": {"id": question.author, "age_days": 1}}
        if question.tenant:
            context["tenant"] = question.tenant
        body = json.dumps({"content": {"type": "text", "text": question.text}, "context": context}).encode()
        headers = {
            **self._headers,
            "Host": f"{self._host}:{self._port}",
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "X-Request-Id": request_id,
            "X-Baleen-Priority": question.priority,
        }
        if question.deadline_ms is not None:
            headers["X-Baleen-Deadline-Ms"] = str(question.deadline_ms)
        if question.is_retried:
            headers["Idempotency-Key"] = f"key-{question.number}"
        lines = ["POST /v1/moderate HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join([*lines, "", ""]).encode() + body
