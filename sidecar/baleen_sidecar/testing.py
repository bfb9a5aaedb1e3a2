"""A stand-in for every port, in memory: for our tests, and for the tests of whoever builds on Baleen.

Each keeps the promises of its port; the stores pass the same suite as the real ones (tests/contract). A `Memory…` keeps
what it is given, a `Fixed…` answers what it was told to.
"""

import asyncio
import hashlib
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
from msgspec import structs
from numpy.typing import NDArray
from PIL import Image

from baleen_core.callers import Identity, KeyRole
from baleen_core.canonical import digest_of
from baleen_core.errors import (
    BaleenError,
    ContentError,
    FetchError,
    IntegrityError,
    LogUnavailable,
    ModelUnavailable,
    Problem,
    StateError,
    Unauthenticated,
    UpstreamError,
)
from baleen_core.model.schema import DataType, Model, Tensor
from baleen_core.policy.schema import ListType, Revision, Verdict
from baleen_core.records import DecisionRecord, decode_record, encode, split_personal
from baleen_sidecar.media.sampling import instants
from baleen_sidecar.ports import (
    ANYONE,
    KEY_SECONDS,
    Activation,
    Adopted,
    Beside,
    CacheLevel,
    CacheStats,
    Change,
    Debt,
    Frame,
    ImageInfo,
    Kept,
    Key,
    KnownKey,
    LoggedDecision,
    ModelScores,
    Owed,
    Page,
    Published,
    RequestKey,
    Skipped,
    Tensors,
    VideoInfo,
    Work,
)

Score = float | Callable[[Tensors], float]
"""A score from 0 to 1, or what computes it from one row of the inputs (without the batch axis)."""

DTYPES: Mapping[DataType, type[np.generic]] = {
    DataType.FP32: np.float32,
    DataType.INT64: np.int64,
    DataType.INT32: np.int32,
    DataType.UINT8: np.uint8,
}

__all__ = [
    "FixedFrames",
    "FixedImages",
    "FixedInference",
    "FixedLanguage",
    "FixedPerceptualHash",
    "MemoryDebts",
    "MemoryDecisionLog",
    "MemoryFetcher",
    "MemoryLastGood",
    "MemoryPolicySource",
    "MemoryRevisionStore",
    "MemoryScoreCache",
    "Score",
]


class MemoryDecisionLog:
    """Keeps records as JSON, as the real one does; while `fault` is set, appends fail for that reason.

    `debts` has what is owed another look.
    """

    def __init__(self) -> None:
        self.fault = ""
        self.origins: dict[str, str] = {}
        self.debts = MemoryDebts()
        self._rows: dict[str, bytes] = {}
        self._keys: dict[str, tuple[RequestKey, str]] = {}

    async def append(self, record: DecisionRecord, beside: Beside | None = None) -> bool:
        """Keep the record; one that is kept already changes nothing. False as for ports.DecisionLog.

        Raises:
            LogUnavailable: `fault` is set.
            IntegrityError: another record has this id.
        """
        if self.fault:
            raise LogUnavailable(f"decision log: {self.fault}")
        beside = beside or Beside()
        if beside.key is not None:
            key, decision_id = self._keys.get(beside.key.id, (beside.key, record.id))
            if decision_id != record.id and key.time_seconds > beside.key.time_seconds - KEY_SECONDS:
                return False
        if beside.settles is not None and record.id not in self._rows and not self.debts.settle(beside.settles):
            return False
        if self._keep(record):
            self.debts.put(beside)
        if beside.key is not None:
            self._keys[beside.key.id] = beside.key, record.id
        return True

    def begin(self, record: DecisionRecord, beside: Beside | None = None) -> asyncio.Future[bool]:
        """See ports.DecisionLog."""
        return asyncio.ensure_future(self.append(record, beside))

    async def find_key(self, key_id: str, *, now_seconds: float) -> KnownKey | None:
        """Find what is kept under an idempotency key that is not too old."""
        if key_id not in self._keys:
            return None
        key, decision_id = self._keys[key_id]
        is_old = key.time_seconds <= int(now_seconds) - KEY_SECONDS
        return None if is_old else KnownKey(fingerprint=key.fingerprint, decision_id=decision_id)

    async def take(self, record: DecisionRecord, *, origin: str) -> bool:
        """Keep what somebody else decided; False when it was kept before. Raises as `append` does."""
        is_new = self._keep(record)
        self.origins.setdefault(record.id, origin)
        return is_new

    def _keep(self, record: DecisionRecord) -> bool:
        if self.fault:
            raise LogUnavailable(f"decision log: {self.fault}")
        data = encode(record)
        is_new = record.id not in self._rows
        kept = self._rows.setdefault(record.id, data)
        if kept != data and not self._is_erased(record):
            raise IntegrityError(
                f"decision {record.id} is on record already", expected=digest_of(kept), found=digest_of(data)
            )
        return is_new

    async def sync(self) -> None:
        """Say that all is durable, as far as memory is.

        Raises:
            LogUnavailable: `fault` is set.
        """
        if self.fault:
            raise LogUnavailable(f"decision log: {self.fault}")

    async def get(self, decision_id: str) -> DecisionRecord | None:
        """Find a record by its id."""
        data = self._rows.get(decision_id)
        return None if data is None else decode_record(data)

    async def erase(self, author: str, *, tenant: str | None = None) -> int:
        """Erase the personal part of every decision about an author, and say how many there were."""
        erased = 0
        for decision_id, data in self._rows.items():
            record = decode_record(data)
            context = record.evidence.context
            if str(context.author.get("id")) == author and tenant in (None, context.tenant):
                self._rows[decision_id] = encode(structs.replace(split_personal(record)[0], erased=True))
                self._keys = {name: each for name, each in self._keys.items() if each[1] != decision_id}
                self.debts.forget(decision_id)
                erased += 1
        return erased

    def _is_erased(self, record: DecisionRecord) -> bool:
        kept = decode_record(self._rows[record.id])
        return kept.erased and structs.replace(split_personal(record)[0], erased=True) == kept

    async def recent(self, *, limit: int = 100, decision: Verdict | None = None) -> Sequence[DecisionRecord]:
        """Return the newest records, newest first; with `decision`, of that one alone."""
        records = [decode_record(data) for data in reversed(self._rows.values())]
        return [record for record in records if decision in (None, record.decision.decision)][:limit]

    async def newest(self, *, before: int | None = None, limit: int) -> Sequence[LoggedDecision]:
        """Return the newest decisions as they are written, newest first; with `before`, those in places below it."""
        rows = [
            LoggedDecision(sequence=place, id=decision_id, record=data)
            for place, (decision_id, data) in enumerate(self._rows.items(), start=1)
            if before is None or place < before
        ]
        return rows[::-1][:limit]

    async def log_id(self) -> str:
        """Say that nobody shares this log."""
        return ""

    async def count(self) -> int:
        """Say how many decisions are on record."""
        return len(self._rows)


class MemoryDebts:
    """Keeps what is owed another look, as the store of a decision log does."""

    def __init__(self) -> None:
        self._debts: dict[str, tuple[Debt, float]] = {}
        self._changes: list[Change] = []

    def put(self, beside: Beside) -> None:
        """Keep what stands beside a decision."""
        if beside.debt is not None:
            self._debts[beside.debt.decision_id] = beside.debt, 0.0
        if beside.change is not None:
            self._changes.append(replace(beside.change, sequence=len(self._changes) + 1))

    def settle(self, debt: Debt) -> bool:
        """Take a debt out that is still claimed so."""
        kept, _ = self._debts.get(debt.decision_id, (None, 0.0))
        if kept is None or kept.claim != debt.claim:
            return False
        del self._debts[debt.decision_id]
        return True

    def forget(self, decision_id: str) -> None:
        """Take a debt out."""
        self._debts.pop(decision_id, None)

    async def owed(self) -> Owed:
        """Say how much is owed."""
        debts = [debt for debt, _ in self._debts.values()]
        return Owed(
            decisions=len(debts),
            size_bytes=sum(debt.content.size_bytes for debt in debts),
            oldest=min((debt.time for debt in debts), default=""),
            waits_for=frozenset(debt.models for debt in debts),
        )

    async def claim(
        self, payable: Collection[tuple[str, ...]], *, limit: int, now_seconds: float, lease_seconds: float
    ) -> Sequence[Debt]:
        """Take debts that wait for these sets of models, the riskiest first and of those the oldest."""
        due = [debt for debt, at in self._debts.values() if at <= int(now_seconds) and debt.models in payable]
        due.sort(key=lambda debt: (-debt.risk, debt.time, debt.decision_id))
        claim = os.urandom(16).hex()
        taken = [replace(debt, claim=claim, tries=debt.tries + 1) for debt in due[:limit]]
        self._debts |= {debt.decision_id: (debt, int(now_seconds + lease_seconds)) for debt in taken}
        return taken

    async def put_back(self, debt: Debt, *, due_seconds: float, read_failed: bool = False) -> None:
        """Give up a claim; from `due_seconds` on it can be taken again. A read that failed is counted."""
        if self.settle(debt):
            left = replace(debt, claim="", failed_reads=debt.failed_reads + read_failed)
            self._debts[debt.decision_id] = left, int(due_seconds)

    async def forgive(self, debt: Debt) -> None:
        """Take a debt out of which the decision is gone."""
        self.settle(debt)

    async def changes(self, *, after: int, limit: int, tenant: str | None = None) -> Sequence[Change]:
        """Return changes, oldest first, of higher `sequence` than `after`; of one tenant or of all."""
        found = [each for each in self._changes if each.sequence > after and tenant in (None, each.tenant)]
        return found[:limit]


class MemoryRevisionStore:
    """Keeps revisions, lists and activations until it is dropped."""

    def __init__(self) -> None:
        self._revisions: dict[str, Revision] = {}
        self._lists: dict[str, str] = {}
        self._activations: list[Activation] = []

    async def put_revision(self, policy: str, revision: Revision) -> None:
        """Keep a revision; keeping it again changes nothing.

        Raises:
            IntegrityError: other content is kept under this digest.
        """
        kept = self._revisions.setdefault(revision.digest, revision)
        _check_same("revisions", revision.digest, kept.content, revision.content)

    async def get_revision(self, digest: str) -> Revision | None:
        """Find a revision by digest."""
        return self._revisions.get(digest)

    async def put_list(self, digest: str, content: str) -> None:
        """Keep a list's canonical text under its digest.

        Raises:
            IntegrityError: other content is kept under this digest.
        """
        _check_same("lists", digest, self._lists.setdefault(digest, content), content)

    async def get_list(self, digest: str) -> str | None:
        """Find a list's canonical text by digest."""
        return self._lists.get(digest)

    async def record_activation(self, activation: Activation) -> None:
        """Append to the history."""
        self._activations.append(activation)

    async def history(self, policy: str, *, limit: int = 10) -> Sequence[Activation]:
        """Return the activations of a policy, newest first."""
        return [activation for activation in reversed(self._activations) if activation.policy == policy][:limit]

    async def find_activation(self, policy: str, *, digest: str = "", version: str = "") -> Activation | None:
        """Find the newest activation of a policy with this digest, or with this version, however long ago it was."""
        found = (row for row in reversed(self._activations) if row.policy == policy)
        return next((row for row in found if digest in ("", row.digest) and version in ("", row.version)), None)

    async def last_active(self) -> Sequence[Activation]:
        """Return the newest activation of each policy, by policy name."""
        newest = {activation.policy: activation for activation in self._activations}
        return [newest[policy] for policy in sorted(newest)]


class MemoryPolicySource:
    """Publishes what it is told to; `lists` has canonical texts by digest, `adopted` what was reported last.

    While `problem` is set nothing new is published, and no list can be read.
    """

    def __init__(self, published: Published | None = None, *, lists: Mapping[str, str] | None = None) -> None:
        self._published = published
        self._number = 0 if published is None else 1
        self._changed = asyncio.Event()
        self.lists = dict(lists or {})
        self.problem = ""
        self.adopted: Mapping[Key, Adopted] = {}

    def publish(self, published: Published) -> None:
        """Say from now on that this is everything."""
        self._published = published
        self._number += 1
        self._wake()

    def lose(self, problem: str) -> None:
        """Be out of reach."""
        self.problem = problem

    def come_back(self) -> None:
        """Be in reach again."""
        self.problem = ""
        self._wake()

    async def published(self) -> AsyncGenerator[Published, None]:
        """Yield everything, and again after each change; what came while nobody asked is one."""
        seen = 0
        while True:
            if self._published is None or self._number == seen or self.problem:
                await self._changed.wait()
                continue
            seen = self._number
            yield self._published

    async def read_list(self, namespace: str, digest: str, type: ListType) -> str | None:
        """Return a list's text, if it is there.

        Raises:
            UpstreamError: `problem` is set.
        """
        if self.problem:
            raise UpstreamError(self.problem)
        return self.lists.get(digest)

    async def report(self, adopted: Mapping[Key, Adopted]) -> None:
        """Remember it."""
        self.adopted = adopted

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


class MemoryLastGood:
    """Keeps the last good state until it is dropped; while `fault` is set, it can be neither read nor written."""

    def __init__(self) -> None:
        self.fault = ""
        self.kept = Kept()

    async def load(self) -> Kept:
        """Return what was saved last.

        Raises:
            StateError: `fault` is set.
        """
        self._check()
        return self.kept

    async def save(self, kept: Kept) -> None:
        """Replace it.

        Raises:
            StateError: `fault` is set.
        """
        self._check()
        self.kept = kept

    def _check(self) -> None:
        if self.fault:
            raise StateError(f"the last good state: {self.fault}")


class MemoryScoreCache:
    """Remembers all scores for `ttl_seconds` of the clock that it is given, which stands still unless another is."""

    def __init__(self, *, ttl_seconds: float = 3600.0, wall_seconds: Callable[[], float] = lambda: 0.0) -> None:
        self._ttl_seconds = ttl_seconds
        self._wall_seconds = wall_seconds
        self._entries: dict[bytes, tuple[ModelScores, float]] = {}
        self._hits = self._misses = 0

    async def get(self, keys: Sequence[bytes], *, tenant: str = "") -> Mapping[bytes, ModelScores]:
        """Return what is there and not too old."""
        now = self._wall_seconds()
        entries = {key: self._entries[key] for key in keys if key in self._entries}
        found = {key: scores for key, (scores, until) in entries.items() if now < until}
        self._hits += len(found)
        self._misses += len(keys) - len(found)
        return found

    async def put(self, scores: Mapping[bytes, ModelScores], *, tenant: str = "") -> None:
        """Remember it."""
        until = self._wall_seconds() + self._ttl_seconds
        self._entries |= {key: (each, until) for key, each in scores.items()}

    async def clear(self) -> Mapping[str, int]:
        """Forget everything."""
        count = len(self._entries)
        self._entries.clear()
        return {"Memory": count}

    def stats(self) -> CacheStats:
        """Return the numbers so far."""
        level = CacheLevel(name="Memory", hits=self._hits, misses=self._misses, entries=len(self._entries))
        return CacheStats(hits=self._hits, misses=self._misses, levels=(level,))


class FixedInference:
    """Gives each signal (`<model>.<signal>`) the score of `scores`, or `default`.

    Models named in `down` do not answer; both can be changed while it is in use. `calls` has the model and the number
    of rows of each call, in order.
    """

    def __init__(
        self, scores: Mapping[str, Score] | None = None, *, default: float = 0.0, down: Collection[str] = ()
    ) -> None:
        self.scores = dict(scores or {})
        self.default = default
        self.down = set(down)
        self.calls: list[tuple[str, int]] = []

    async def infer(self, model: Model, inputs: Tensors, work: Work = ANYONE) -> Tensors:
        """Answer for every row.

        Raises:
            ModelUnavailable: the model is down, or the inputs are not as the model declares them.
        """
        rows = _count_rows(model, inputs)
        self.calls.append((model.name, rows))
        if model.name in self.down:
            raise ModelUnavailable(f"model {model.name} is down")
        outputs = {output.name: _zeros(output, rows) for output in model.outputs}
        for signal in model.signals:
            score = self.scores.get(f"{model.name}.{signal.name}", self.default)
            index = slice(None) if signal.index is None else signal.index
            for row in range(rows):
                value = score({name: array[row] for name, array in inputs.items()}) if callable(score) else score
                outputs[signal.output][row, ..., index] = value
        return outputs

    async def is_ready(self, model: Model) -> bool:
        """Say whether the model is not down."""
        return model.name not in self.down


class FixedLanguage:
    """Says `language` of every text, apart from those in `texts`."""

    def __init__(self, language: str | None = "en", *, texts: Mapping[str, str | None] | None = None) -> None:
        self._language = language
        self._texts = dict(texts or {})

    def detect(self, text: str) -> str | None:
        """Return the language that was set for the text."""
        return self._texts.get(text, self._language)


class MemoryFetcher:
    """Gives the pages that it has by address; an error in the place of a page is raised."""

    def __init__(self, pages: Mapping[str, Page | BaleenError] | None = None) -> None:
        self.pages = dict(pages or {})

    async def fetch(self, url: str) -> Page:
        """Give the page of an address.

        Raises:
            ContentError: not an address of http or https.
            FetchError: there is no page of that address.
        """
        if not url.startswith(("http://", "https://")):
            raise ContentError([Problem(field="content.url", message=f"{url!r} must begin with http:// or https://")])
        match self.pages.get(url):
            case Page() as page:
                return page
            case None:
                raise FetchError(f"{url} answered 404")
            case error:
                raise error


class FixedImages:
    """Takes any bytes for one `picture`, a grey square unless another is given."""

    def __init__(
        self, picture: Image.Image | None = None, *, media_type: str = "image/png", animated: bool = False
    ) -> None:
        self._picture = picture or Image.new("RGB", (32, 32), (128, 128, 128))
        self._media_type = media_type
        self._animated = animated

    def inspect(self, data: bytes) -> ImageInfo:
        """Describe the picture.

        Raises:
            ContentError: there are no bytes.
        """
        _check_content(data, "an image")
        width, height = self._picture.size
        return ImageInfo(media_type=self._media_type, width=width, height=height, animated=self._animated)

    def decode(self, data: bytes) -> Image.Image:
        """Give a copy of the picture.

        Raises:
            ContentError: there are no bytes.
        """
        _check_content(data, "an image")
        return self._picture.convert("RGB")


class FixedPerceptualHash:
    """Names a picture by `value`, or by a digest of its pixels: equal pictures alike, all others far apart."""

    def __init__(self, value: bytes | None = None) -> None:
        self._value = value

    def hash(self, picture: Image.Image) -> bytes:
        """Return 256 bits."""
        return hashlib.sha256(picture.tobytes()).digest() if self._value is None else self._value


class FixedFrames:
    """Takes any bytes for a video that shows `pictures` one after the other, each for the same time.

    The last `skipped` sampling instants cannot be decoded. `yielded` counts the frames that were asked for so far.
    """

    def __init__(self, pictures: Sequence[Image.Image], *, duration_milliseconds: int = 1000, skipped: int = 0) -> None:
        if not pictures:
            raise ValueError("a video has one picture or more")
        self._pictures = tuple(pictures)
        self._duration_milliseconds = duration_milliseconds
        self._skipped = skipped
        self.yielded = 0

    async def frames(self, data: bytes, *, frames_per_minute: int) -> AsyncIterator[VideoInfo | Frame | Skipped]:
        """Yield the video's description, a frame for each sampling instant, and what was skipped.

        Raises:
            ContentError: there are no bytes.
        """
        _check_content(data, "a video")
        width, height = self._pictures[0].size
        yield VideoInfo(duration_milliseconds=self._duration_milliseconds, width=width, height=height)
        due = instants(self._duration_milliseconds, frames_per_minute)
        for at in due[: max(0, len(due) - self._skipped)]:
            self.yielded += 1
            yield Frame(at_milliseconds=at, image=self._on_display(at))
        yield Skipped(count=min(self._skipped, len(due)), duration_milliseconds=self._duration_milliseconds)

    def _on_display(self, at: int) -> Image.Image:
        share = len(self._pictures) * at // max(1, self._duration_milliseconds)
        return self._pictures[min(share, len(self._pictures) - 1)]


def _check_same(table: str, digest: str, kept: str, content: str) -> None:
    if kept != content:
        found = digest_of(kept.encode())
        raise IntegrityError(f"other content is kept under {digest} in {table}", expected=digest, found=found)


def _check_content(data: bytes, what: str) -> None:
    if not data:
        raise ContentError([Problem(field="content", message=f"no bytes are not {what}")])


def _count_rows(model: Model, inputs: Tensors) -> int:
    """Check inputs as a server would: names, types, and as many rows in each as one call may carry."""
    expected = {tensor.name: DTYPES[tensor.data_type] for tensor in model.inputs}
    found = {name: array.dtype.type for name, array in inputs.items()}
    if found != expected:
        raise ModelUnavailable(f"model {model.name} takes the inputs {expected}, not {found}")
    counts = {len(array) for array in inputs.values()}
    if len(counts) != 1 or not 1 <= max(counts) <= model.batching.max_batch_size:
        limit = model.batching.max_batch_size
        raise ModelUnavailable(f"model {model.name} takes 1 to {limit} rows, as many in each input, not {counts}")
    return counts.pop()


def _zeros(output: Tensor, rows: int) -> NDArray[np.generic]:
    return np.zeros((rows, *(max(1, size) for size in output.dims)), dtype=DTYPES[output.data_type])


class FixedTokens:
    """Knows callers by the tokens that it was told of; while it has a `problem`, nobody can be found out."""

    def __init__(self, owners: Mapping[str, Identity] | None = None) -> None:
        self.owners = dict(owners or {})
        self.problem = ""

    async def identify(self, token: str, role: KeyRole) -> Identity:
        """See Tokens."""
        if self.problem:
            raise UpstreamError(self.problem)
        if token not in self.owners:
            raise Unauthenticated([Problem(field="Authorization", message="the token is nobody's")])
        return self.owners[token]
