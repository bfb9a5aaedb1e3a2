"""Reconcile a ModerationPolicy: observe → plan → act → status; whatever happened before, and as often as it comes."""

import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any, Final

from baleen_core.checking import Place
from baleen_core.errors import BaleenError, ClusterError, InvalidError, PolicyError, Problem, Stale
from baleen_core.policy.in_force import Override, in_force, parse_override
from baleen_core.policy.lists import canonical_list, read_list
from baleen_core.policy.parse import parse_plan
from baleen_core.policy.revision import read_revision
from baleen_core.policy.schema import API_VERSION, ListSourceType, ListType, Plan, Revision, Role, Scope
from baleen_core.policy.scope import SCOPE_CONFLICT
from baleen_core.policy_stream import BacktestQuestion, BacktestRevision
from baleen_core.resources import (
    ALLOW_DELETE_ANNOTATION,
    APPROVED_BY_ANNOTATION,
    GROUP,
    OVERRIDE_KIND,
    PLURALS,
    POLICY_KIND,
    REVISION_KIND,
    ROUTE_KIND,
    SHARD_KEY,
    VERSION,
    PublishedRoute,
    list_object_name,
    read_route,
    revision_name,
    split_list,
    write_revision,
    write_route,
)
from baleen_operator.plan.acceptance import Material, Refused, Valid, Verdict, judge_policy, refuse_unproven
from baleen_operator.plan.actions import Apply, ApplyStatus, Delete, Emit, Target
from baleen_operator.plan.conditions import say_problems
from baleen_operator.plan.history import MAX_ACTIVATIONS
from baleen_operator.plan.list_objects import Shard, is_owned, make_shards, owner_of, shard_count, write_shard
from baleen_operator.plan.policy import Decision, Observed, SeenRoute, decide
from baleen_operator.plan.rollout import look_seconds, name_plan
from baleen_operator.plan.standing import Enforcers, Notice, find_notices, make_status
from baleen_operator.plan.trial import Known, Tally, find_doubted, newest, tally
from baleen_operator.reconcile.memory import Counted, Judged
from baleen_operator.reconcile.ports import Key, Manifest, Outcome, Ports
from baleen_operator.resources.policy import (
    Candidate,
    KeptRevision,
    Meaning,
    Status,
    list_sources,
    read_head,
    read_kept_revision,
    read_meaning,
    read_status,
    stored_revision,
    write_rows,
    write_status,
)
from baleen_operator.resources.stamps import read_stamp

SECRET_POLL_SECONDS: Final = 30.0
"""Secrets are read and never watched."""
MAX_BACKTEST_LIST_BYTES: Final = 4 * 1024 * 1024
"""Lists of digests that are sent along with a question; others were not looked up, as far as a backtest knows."""
TARGETS: Final[Mapping[str, Target]] = {
    kind: Target(group=GROUP, version=VERSION, plural=plural, kind=kind) for kind, plural in PLURALS.items()
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sources:
    """The texts that a policy's lists are written in, and what of them cannot be read."""

    texts: Mapping[Place, Mapping[str, Any]] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Writes:
    """What of a revision must be written: itself (after `wrong` is gone), and shards of its lists.

    `missing` are lists that are not there and cannot be written again.
    """

    digest: str
    material: Material | None = None
    wrong: KeptRevision | None = None
    shards: tuple[Shard, ...] = ()
    missing: frozenset[str] = frozenset()


async def reconcile_policy(key: Key, ports: Ports) -> Outcome:
    """Bring a policy's revisions, lists, route and status to where they belong, and say when to look again.

    Raises:
        Stale: somebody else wrote in between: call again. ClusterError: the API server refused or did not answer.
    """
    return await _Reconciling(key, ports).run()


class _Reconciling:
    """One reconcile of one policy."""

    def __init__(self, key: Key, ports: Ports) -> None:
        self.key, self.ports = key, ports
        self.namespace, self.name = key
        self.manifest = ports.seen.get(POLICY_KIND, key)
        self.route_manifest = ports.seen.get(ROUTE_KIND, key)
        self.material: Material | None = None
        self.counted: Counted | None = None

    async def run(self) -> Outcome:
        if self.manifest is None and self.route_manifest is None:
            return await self._leave()
        sources = await self._read_sources()
        seen = await self._observe(sources)
        now = self.ports.clock()
        decision = decide(seen, now)
        writes = await self._find_writes(seen, decision, sources)
        rivals = self._rivals(seen, decision, now)
        content = await self._find_content(decision, sources)
        status = self._status(seen, decision, writes, rivals, now)
        notices = find_notices(seen, decision, status)
        if self.counted is not None:
            # Before it is written: what is written and not heard of must not count twice.
            self.ports.memory.counted.put(self.key, self.counted)
        elif decision.route is None or decision.route.route.candidate is None:
            self.ports.memory.counted.drop(self.key)
        await self._act(seen, decision, writes, status, notices)
        if content is not None and decision.gate is not None and decision.gate.question is not None:
            self.ports.backtests.ask(self.key, decision.gate.question, content)
        queries = decision.look.queries if decision.look is not None else None
        if queries is not None and self.ports.grants.may_query(self.namespace):
            self.ports.provider.ask(self.key, queries)
        return Outcome(
            requeue_seconds=self._requeue_seconds(seen, decision, now),
            affected=self._affected(seen, decision, rivals),
        )

    async def _leave(self) -> Outcome:
        """Tell those that a policy which is gone was in the way of."""
        self.ports.memory.verdicts.drop(self.key)
        revisions = [await self._verify(each) for each in self.ports.seen.revisions(self.key)]
        meanings = [each.meaning for each in revisions if each.meaning is not None]
        places = {(each.type, each.scope) for each in meanings}
        affected = {key for place in places for key in self._naming(place)}
        return Outcome(affected=frozenset(affected))

    # Observing

    async def _read_sources(self) -> _Sources:
        texts: dict[Place, Mapping[str, Any]] = {}
        problems = []
        for kind, name in list_sources(self.manifest) if self.manifest is not None else ():
            try:
                found = await self.ports.cluster.read_texts(kind, self.namespace, name)
            except ValueError as exc:
                problems.append(Problem(field="spec.policy.lists", message=f"{kind.value} {name}: {exc}"))
                continue
            if found is not None:
                texts[kind, self.namespace, name] = found
        return _Sources(texts=texts, problems=tuple(problems))

    async def _observe(self, sources: _Sources) -> Observed:
        verdict = await self._judge(sources) if self.manifest is not None else None
        if isinstance(verdict, Valid):
            verdict = await self._prove(verdict, sources)
        override_manifest = self.ports.seen.get(OVERRIDE_KIND, self.key)
        override, override_problem = _read_override(override_manifest)
        seen = Observed(
            namespace=self.namespace,
            name=self.name,
            head=read_head(self.manifest) if self.manifest is not None else None,
            status=read_status(self.manifest) if self.manifest is not None else Status(),
            verdict=verdict,
            route=_read_seen_route(self.route_manifest),
            override=override,
            override_problem=override_problem,
            revisions=await self._read_revisions(verdict),
            salt=self.ports.salt(),
            asked=self.ports.backtests.asked(self.key),
            looked=self.ports.provider.looked(self.key),
            approved=read_stamp(override_manifest or {}, APPROVED_BY_ANNOTATION),
            needs_another=self.ports.approval_by_another,
        )
        published = seen.route.published if seen.route else None
        if published is not None and published.route.candidate is not None:
            said = self.ports.gateways.acknowledged(self.key, published.epoch)
            seen = replace(
                seen, is_adopted=said.has_looked and said.current >= said.total, behind=", ".join(said.stale)
            )
            seen = self._count(seen, published)
        seen = replace(seen, whole=await self._find_whole(seen, sources))
        if seen.head is None and seen.route is not None and seen.route.published is not None:
            seen = replace(seen, is_covered=self._is_covered(seen.route.published.type, seen.route.published.scope))
        return seen

    def _count(self, seen: Observed, published: PublishedRoute) -> Observed:
        """Take in what gateways counted of a rollout; what was not seen while nobody looked is no news.

        They are asked each second. What they say is taken in less often, so that not each of their answers is a status.
        """
        rollout, candidate = published.rollout, published.route.candidate
        assert candidate is not None, "something is rolled out"
        digest, status, now = candidate.digest, seen.status.candidate, self.ports.clock()
        known = self.ports.memory.counted.get(self.key)
        known = known if known and known.rollout == rollout else None
        plan = self._plan_of(digest, seen, known)
        # The route may be ahead of the status.
        is_exposed = bool(status and status.step) and not candidate.exposure.is_shadow
        has_begun = status is not None and status.digest == digest and (bool(status.step_time) or is_exposed)
        if known and has_begun and 0 <= (now - known.time).total_seconds() < look_seconds(plan):
            return replace(seen, known_plan=plan, counted=_add_up(known))
        before, trials = known.processes if known and has_begun else {}, self.ports.gateways.trial(self.key, rollout)
        processes, doubted = newest(before, trials.values()), find_doubted(before, trials)
        baseline = known.baseline if known and has_begun else {} if has_begun else processes
        found = Counted(
            rollout=rollout,
            plan=plan,
            baseline=baseline,
            processes=processes,
            time=now,
            doubted=doubted,
            judged=known.judged if known and has_begun else _read_judged(status, rollout) if has_begun else Known(),
            lost=known.lost if known and has_begun else None,
        )
        news = tally(processes, known.processes) if known and has_begun else Tally()
        counted = _add_up(found)
        # Gateways that were not asked yet have lost nothing.
        self.counted = replace(found, lost=counted.lost) if seen.is_adopted and has_begun else found
        return replace(seen, known_plan=plan, counted=counted, news=news)

    def _plan_of(self, digest: str, seen: Observed, known: Counted | None) -> Plan:
        """Return the plan that a candidate goes by; an empty one where nobody can tell."""
        verdict, status = seen.verdict, seen.status.candidate
        if isinstance(verdict, Valid) and verdict.digest == digest:
            return verdict.plan
        if known is not None and known.plan.steps:
            return known.plan
        began_by = status.plan if status is not None and status.digest == digest else ""
        return _read_plan(self.manifest or {}, began_by)

    async def _judge(self, sources: _Sources) -> Verdict:
        """Check the policy, unless all that a verdict is made of is as it was."""
        fingerprint = self._fingerprint(sources)
        known = self.ports.memory.verdicts.get(self.key)
        if known is not None and known.fingerprint == fingerprint:
            return known.verdict
        verdict, self.material = await self._judge_anew(sources)
        self.ports.memory.verdicts.put(self.key, Judged(fingerprint=fingerprint, verdict=verdict))
        return verdict

    async def _judge_anew(self, sources: _Sources) -> tuple[Verdict, Material | None]:
        assert self.manifest is not None, "only what a policy says can be judged"
        models, grants = self.ports.seen.models(), self.ports.grants
        work = partial(judge_policy, _as_written(self.manifest), sources.texts, sources.problems, models, grants)
        return await self.ports.off_loop(work)

    async def _prove(self, valid: Valid, sources: _Sources) -> Verdict:
        """Refuse what may make softer what neither the stable policy nor this one lets be made softer.

        What was stable within the rollback window was so before: going back is no change to be proven.
        """
        seen = _read_seen_route(self.route_manifest)
        published = seen.published if seen else None
        if published is None or valid.digest in (published.route.stable, *published.route.recent_stable):
            return valid
        named = tuple(sorted({*published.never_loosen, *valid.gates.never_loosen}))
        name = revision_name(self.name, published.route.stable)
        manifest = self.ports.seen.get(REVISION_KIND, (self.namespace, name)) if named else None
        if manifest is None:
            return valid
        proofs, question = self.ports.memory.proofs, (published.route.stable, valid.digest, named)
        refused = proofs.get(question)
        if refused is None:
            material = self.material or (await self._judge_anew(sources))[1]
            if material is None or material.revision.digest != valid.digest:
                raise Stale(f"{self.namespace}/{self.name}: what its policy is checked by changed meanwhile")
            candidate = material.revision
            refused = await self.ports.off_loop(lambda: _compare(manifest, candidate, named))
            proofs.put(question, refused)
        return refused if isinstance(refused, Refused) else valid

    def _fingerprint(self, sources: _Sources) -> bytes:
        assert self.manifest is not None, "only what a policy says can be judged"
        metadata = self.manifest["metadata"]
        found = hashlib.blake2b(digest_size=16)
        found.update(repr((metadata.get("uid"), metadata.get("generation"))).encode())
        for model in self.ports.seen.models():
            found.update(repr((model.name, model.version, [signal.name for signal in model.signals])).encode())
        found.update(repr(sources.problems).encode())
        for place in sorted(sources.texts):
            found.update(repr(place).encode())
            for name, text in sorted(sources.texts[place].items()):
                found.update(repr((name, text)).encode())
        return found.digest()

    async def _read_revisions(self, verdict: Verdict | None) -> dict[str, KeptRevision]:
        manifests = {each["metadata"]["name"]: each for each in self.ports.seen.revisions(self.key)}
        route = _read_seen_route(self.route_manifest)
        wanted = {verdict.digest} if isinstance(verdict, Valid) else set()
        if route is not None and route.published is not None:
            routed = route.published.route
            wanted |= {routed.stable, *routed.recent_stable}
            wanted |= {routed.candidate.digest} if routed.candidate else set()
        for name in {revision_name(self.name, each) for each in wanted} - manifests.keys():
            # Without its label it is not found among the policy's own.
            unlabelled = self.ports.seen.get(REVISION_KIND, (self.namespace, name))
            if unlabelled is not None:
                manifests[name] = unlabelled
        found = [await self._verify(each) for each in manifests.values()]
        # A name is made of the digest, so that no other object can pass for a revision.
        return {each.digest: each for each in found if each.name == revision_name(self.name, each.digest)}

    async def _verify(self, manifest: Manifest) -> KeptRevision:
        meanings, uid = self.ports.memory.meanings, str(manifest["metadata"].get("uid", ""))
        meaning = meanings.get(uid)
        if meaning is None:
            meaning = await self.ports.off_loop(partial(read_meaning, manifest))
            meanings.put(uid, meaning)
        return read_kept_revision(manifest, self.name, meaning)

    async def _find_whole(self, seen: Observed, sources: _Sources) -> frozenset[str]:
        """Return the revisions whose lists are all there, of those that the route could have to go back to."""
        published = seen.route.published if seen.route else None
        kept = seen.revisions.get(published.route.stable) if published else None
        if kept is not None and kept.meaning is not None:
            return frozenset((kept.digest,))
        if isinstance(seen.verdict, Valid) and published and published.route.stable == seen.verdict.digest:
            return frozenset((seen.verdict.digest,))
        whole = []
        for each in seen.revisions.values():
            if each.meaning is not None and not (await self._find_lists(each, each.meaning, sources)).missing:
                whole.append(each.digest)
        return frozenset(whole)

    # What must be written besides the route

    async def _find_writes(self, seen: Observed, decision: Decision, sources: _Sources) -> tuple[_Writes, ...]:
        """Find what of the stable revision and its candidate is not there: nothing is routed that is not whole."""
        if decision.route is None:
            return ()
        routed = decision.route.route
        digests = (routed.stable, *([routed.candidate.digest] if routed.candidate else []))
        return tuple([await self._find_writes_of(each, seen, decision, sources) for each in digests])

    async def _find_writes_of(self, digest: str, seen: Observed, decision: Decision, sources: _Sources) -> _Writes:
        kept, verdict = seen.revisions.get(digest), decision.verdict
        if isinstance(verdict, Valid) and verdict.digest == digest:
            return await self._find_own_writes(kept, verdict, sources)
        if kept is None or kept.meaning is None:
            return _Writes(digest=digest)
        writes = await self._find_lists(kept, kept.meaning, sources)
        manifest = None if kept.is_labelled else self.ports.seen.get(REVISION_KIND, (self.namespace, kept.name))
        return writes if manifest is None else replace(writes, material=Material(revision=stored_revision(manifest)))

    async def _find_own_writes(self, kept: KeptRevision | None, valid: Valid, sources: _Sources) -> _Writes:
        """Find what is not there of what the policy says, which can all be made."""
        is_there = kept is not None and kept.meaning is not None and kept.is_labelled
        there = {
            (each.digest, each.kind): [
                await self.ports.cluster.list_metadata(each.kind, self.namespace, list_object_name(each.digest, number))
                for number in range(each.shards)
            ]
            for each in valid.lists
        }
        uid = kept.uid if kept is not None and kept.meaning is not None else ""
        if is_there and all(each and is_owned(each, uid) for found in there.values() for each in found):
            return _Writes(digest=valid.digest)
        # A verdict that is remembered has no content with it.
        material = self.material or (await self._judge_anew(sources))[1]
        if material is None or material.revision.digest != valid.digest:
            raise Stale(f"{self.namespace}/{self.name}: what its policy is checked by changed meanwhile")
        shards = []
        for (digest, kind), found in there.items():
            texts = split_list(material.texts[digest])
            for shard in make_shards(digest, kind, texts, found):
                if shard.there is None or not is_owned(shard.there, uid):
                    shards.append(await self._compared(shard))
        return _Writes(
            digest=valid.digest,
            material=None if is_there else material,
            wrong=kept if kept is not None and kept.meaning is None else None,
            shards=tuple(shards),
        )

    async def _find_lists(self, kept: KeptRevision, meaning: Meaning, sources: _Sources) -> _Writes:
        """Find which lists of an older revision are gone, and make again those that their sources still say."""
        shards: list[Shard] = []
        missing = set()
        for type, digest in meaning.lists:
            if await self._is_kept(digest, kept.uid):
                continue
            kind, text = self._find_text(type, digest, sources)
            if text is None:
                missing.add(digest)
                continue
            texts = split_list(text)
            names = [list_object_name(digest, number) for number in range(len(texts))]
            found = [await self.ports.cluster.list_metadata(kind, self.namespace, name) for name in names]
            shards += [await self._compared(each) for each in make_shards(digest, kind, texts, found)]
        return _Writes(digest=meaning.digest, shards=tuple(shards), missing=frozenset(missing))

    async def _is_kept(self, digest: str, uid: str) -> bool:
        for kind in ListSourceType:
            first = await self.ports.cluster.list_metadata(kind, self.namespace, list_object_name(digest, 0))
            if first is None or not is_owned(first, uid):
                continue
            names = [list_object_name(digest, number) for number in range(1, shard_count(first))]
            others = [await self.ports.cluster.list_metadata(kind, self.namespace, name) for name in names]
            if all(each is not None and is_owned(each, uid) for each in others):
                return True
        return False

    def _find_text(self, type: ListType, digest: str, sources: _Sources) -> tuple[ListSourceType, str | None]:
        """Look for a list's content in what the policy's lists are written in now."""
        for (kind, _, _), texts in sources.texts.items():
            for text in texts.values():
                with contextlib.suppress(PolicyError, TypeError, AttributeError):
                    content = read_list(type, text)
                    if content.digest == digest:
                        return kind, canonical_list(content)
        return ListSourceType.CONFIG_MAP, None

    async def _compared(self, shard: Shard) -> Shard:
        """Read what is there already, which may be anything."""
        if shard.there is None:
            return shard
        try:
            found = await self.ports.cluster.read_texts(shard.kind, self.namespace, shard.name)
        except ValueError:
            found = {}
        if found is None:
            return replace(shard, there=None)
        return replace(shard, is_wrong=dict(found) != {SHARD_KEY: shard.text})

    async def _find_content(self, decision: Decision, sources: _Sources) -> BacktestQuestion | None:
        """Write down what gateways need to judge by a candidate that is at its gate: both sides, and its new lists."""
        question = decision.gate.question if decision.gate else None
        if question is None:
            return None
        stable = self.ports.seen.get(REVISION_KIND, (self.namespace, revision_name(self.name, question.stable)))
        material = self.material or (await self._judge_anew(sources))[1]
        if stable is None or material is None or material.revision.digest != question.candidate:
            raise Stale(f"{self.namespace}/{self.name}: what its policy is checked by changed meanwhile")
        before, after = stored_revision(stable), material.revision
        policy = (await self.ports.off_loop(partial(read_revision, after))).policy
        digests, room = {}, MAX_BACKTEST_LIST_BYTES
        for digest in (each.digest or "" for each in policy.lists if each.type is ListType.DIGEST):
            # What is stable names too, gateways have.
            if digest not in before.content and len(material.texts[digest]) <= room:
                digests[digest] = material.texts[digest]
                room -= len(material.texts[digest])
        return BacktestQuestion(
            policy=f"{self.namespace}/{self.name}",
            stable=BacktestRevision(digest=before.digest, content=before.content),
            candidate=BacktestRevision(digest=after.digest, content=after.content),
            decisions=question.gate.decisions,
            lists=digests,
        )

    # Other policies

    def _rivals(self, seen: Observed, decision: Decision, now: datetime) -> dict[Key, str]:
        """Return the policies that compete for the same requests, this one too if it does, by when they were made."""
        route = decision.route
        if route is None or decision.effective is None:
            return {}
        mine = seen.revisions.get(decision.effective)
        meaning = mine.meaning if mine else None
        if meaning is None and isinstance(decision.verdict, Valid) and decision.verdict.digest == decision.effective:
            meaning = decision.verdict.meaning
        if meaning is None or not _competes(meaning):
            return {}
        found = {self.key: route.created}
        for key in self.ports.seen.sharing_scope(meaning.type, meaning.scope):
            if key != self.key and (created := self._standing_of(key, meaning.type, meaning.scope, now)) is not None:
                found[key] = created
        return found

    def _standing_of(self, key: Key, type: str, scope: Scope, now: datetime) -> str | None:
        """Return when another policy was created, if what is in force of it competes for this type and scope."""
        seen_route = _read_seen_route(self.ports.seen.get(ROUTE_KIND, key))
        if seen_route is None or seen_route.published is None:
            return None
        route = seen_route.published
        digest: str | None = route.route.stable
        override, _ = _read_override(self.ports.seen.get(OVERRIDE_KIND, key))
        if override is not None:
            present = {str(each.get("spec", {}).get("digest", "")) for each in self.ports.seen.revisions(key)}
            digest = in_force(route.route, override, present, now=now)
        manifest = self.ports.seen.get(REVISION_KIND, (key[0], revision_name(key[1], digest or "")))
        if manifest is None:
            return None
        uid = str(manifest["metadata"].get("uid", ""))
        meaning = self.ports.memory.meanings.get(uid)
        if meaning is None:
            meaning = read_meaning(manifest)
            self.ports.memory.meanings.put(uid, meaning)
        if isinstance(meaning, str) or not _competes(meaning) or (meaning.type, meaning.scope) != (type, scope):
            return None
        return route.created

    def _is_covered(self, type: str, scope: Scope) -> bool:
        """Say whether a policy that is there binds the same type and scope as this one, which is gone."""
        now = self.ports.clock()
        return any(
            key != self.key
            and self.ports.seen.get(POLICY_KIND, key) is not None
            and self._standing_of(key, type, scope, now) is not None
            for key in self.ports.seen.sharing_scope(type, scope)
        )

    def _affected(self, seen: Observed, decision: Decision, rivals: Mapping[Key, str]) -> frozenset[Key]:
        """Return the others that say by their status that this one wins, or do not say so, and should."""
        route = decision.route or (seen.route.published if seen.route else None)
        if route is None:
            return frozenset()
        affected = set(self._naming((route.type, route.scope)))
        if _winner(rivals) == self.key:
            # Of those that lose, the ones that say so already know.
            affected ^= set(rivals) - {self.key}
        if seen.head is not None:
            # A route whose policy is gone is no longer the last of its scope.
            affected |= {key for key in set(rivals) - {self.key} if self.ports.seen.get(POLICY_KIND, key) is None}
        return frozenset(affected)

    def _naming(self, place: tuple[str, Scope]) -> list[Key]:
        """Return the policies of a type and scope that say that they lose to this one."""
        found = []
        for key in self.ports.seen.sharing_scope(*place):
            manifest = self.ports.seen.get(POLICY_KIND, key) if key != self.key else None
            ready = read_status(manifest).condition("Ready") if manifest is not None else None
            if (
                ready is not None
                and ready.reason == SCOPE_CONFLICT
                and f" {self.namespace}/{self.name} " in ready.message
            ):
                found.append(key)
        return found

    # Acting

    def _status(
        self, seen: Observed, decision: Decision, writes: Sequence[_Writes], rivals: Mapping[Key, str], now: datetime
    ) -> Status | None:
        if seen.head is None:
            return None
        winner = _winner(rivals)
        enforcers = Enforcers()
        if decision.route is not None:
            said = self.ports.gateways.acknowledged(self.key, decision.route.epoch)
            enforcers = Enforcers(total=said.total, current=said.current, stale=said.stale, has_looked=said.has_looked)
        return make_status(
            seen,
            decision,
            enforcers,
            winner=None if winner == self.key else winner,
            missing=frozenset(digest for each in writes for digest in each.missing),
            now=now,
        )

    async def _act(
        self,
        seen: Observed,
        decision: Decision,
        writes: Sequence[_Writes],
        status: Status | None,
        notices: Sequence[Notice],
    ) -> None:
        versions = {each.name: each.resource_version for each in seen.revisions.values()}
        for each in writes:
            notices = [*notices, *await self._write_revision(seen, decision, each, versions)]
        for digest, rows in decision.owed.items():
            await self._write_rows(seen.revisions[digest], write_rows(rows), versions)
        is_told_first = (decision.failed, decision.backtests) != (seen.status.failed, seen.status.backtests)
        if is_told_first:
            # Killed after the route alone, nobody would know that it failed, and it would be tried again.
            await self._write_status(seen, status)
        await self._write_route(seen, decision)
        if decision.overriding is not None:
            kept = seen.revisions[decision.overriding.digest]
            rows = (*decision.owed.get(kept.digest, kept.rows), decision.overriding)
            await self._write_rows(kept, write_rows(rows[-MAX_ACTIVATIONS:]), versions)
        for prunable in decision.prunable:
            await self._delete(REVISION_KIND, prunable.name, prunable.uid)
        if not is_told_first:
            await self._write_status(seen, status)
        await self._tell(notices)

    async def _write_status(self, seen: Observed, status: Status | None) -> None:
        if status is None or self.manifest is None or seen.head is None:
            return
        written = write_status(status)
        if written != self.manifest.get("status"):
            await self.ports.cluster.act(
                ApplyStatus(
                    target=TARGETS[POLICY_KIND],
                    namespace=self.namespace,
                    name=self.name,
                    status=written,
                    resource_version=seen.head.resource_version,
                )
            )

    async def _write_revision(
        self, seen: Observed, decision: Decision, writes: _Writes, versions: dict[str, str]
    ) -> list[Notice]:
        """Write a revision that is routed and its lists, where they are not there."""
        notices: list[Notice] = []
        kept, verdict = seen.revisions.get(writes.digest), decision.verdict
        name, uid = revision_name(self.name, writes.digest), kept.uid if kept else ""
        if writes.wrong is not None:
            await self._delete(REVISION_KIND, writes.wrong.name, writes.wrong.uid)
            message = (
                f"ModerationPolicyRevision {name} was written by hand and is written again: {writes.wrong.problem}"
            )
            notices.append(Notice(reason="RevisionReplaced", message=message, is_warning=True))
            kept = None
        if writes.material is not None:
            said = verdict if isinstance(verdict, Valid) and verdict.digest == writes.digest else None
            stable = decision.route.version if decision.route and decision.route.route.stable == writes.digest else ""
            version = kept.version if kept and kept.version else stable or (said.version if said else "")
            body = write_revision(self.namespace, self.name, version, writes.material.revision)
            written = await self.ports.cluster.act(
                Apply(
                    target=TARGETS[REVISION_KIND],
                    namespace=self.namespace,
                    name=name,
                    body=body,
                    resource_version=kept.resource_version if kept else None,
                )
            )
            assert written is not None, "what is applied is there"
            uid = str(written["metadata"]["uid"])
            versions[name] = str(written["metadata"]["resourceVersion"])
            if said is not None:
                self.ports.memory.meanings.put(uid, said.meaning)
        for shard in writes.shards:
            for action in write_shard(shard, self.namespace, owner_of(name, uid)):
                await self.ports.cluster.act(action)
        return notices

    async def _write_rows(self, kept: KeptRevision, rows: list[dict[str, Any]], versions: dict[str, str]) -> None:
        written = await self.ports.cluster.act(
            ApplyStatus(
                target=TARGETS[REVISION_KIND],
                namespace=self.namespace,
                name=kept.name,
                status={"activations": rows},
                resource_version=versions[kept.name],
            )
        )
        if written is not None:
            versions[kept.name] = str(written["metadata"]["resourceVersion"])

    async def _write_route(self, seen: Observed, decision: Decision) -> None:
        if decision.deletes_route and seen.route is not None:
            await self._delete(ROUTE_KIND, self.name, seen.route.uid)
        if decision.route is None or not decision.writes_route:
            return
        body = write_route(decision.route)
        if decision.allow_delete:
            body["metadata"]["annotations"] = {ALLOW_DELETE_ANNOTATION: decision.allow_delete}
        await self.ports.cluster.act(
            Apply(
                target=TARGETS[ROUTE_KIND],
                namespace=self.namespace,
                name=self.name,
                body=body,
                resource_version=seen.route.resource_version if seen.route else None,
            )
        )

    async def _delete(self, kind: str, name: str, uid: str) -> None:
        await self.ports.cluster.act(Delete(target=TARGETS[kind], namespace=self.namespace, name=name, uid=uid))

    async def _tell(self, notices: Sequence[Notice]) -> None:
        """Tell people, last and at most once; that an Event is lost changes nothing."""
        kind = POLICY_KIND if self.manifest is not None else ROUTE_KIND
        about = self.manifest or self.route_manifest
        uid = str(about["metadata"].get("uid", "")) if about is not None else ""
        told = self.ports.memory.told
        for notice in notices:
            if told.get((uid, notice.reason)) == notice.message:
                continue
            with contextlib.suppress(ClusterError):
                await self.ports.cluster.act(
                    Emit(
                        target=TARGETS[kind],
                        namespace=self.namespace,
                        name=self.name,
                        uid=uid,
                        type="Warning" if notice.is_warning else "Normal",
                        reason=notice.reason,
                        message=notice.message,
                    )
                )
            told.put((uid, notice.reason), notice.message)

    def _requeue_seconds(self, seen: Observed, decision: Decision, now: datetime) -> float | None:
        if decision.again:
            return 0.0
        waits = []
        pin = seen.override.pin_at(now) if seen.override else None
        if pin and pin.expire_time:
            waits.append((datetime.fromisoformat(pin.expire_time) - now).total_seconds())
        if decision.progress is not None and decision.progress.wait_seconds is not None:
            waits.append(decision.progress.wait_seconds)
        if decision.gate is not None and decision.gate.wait_seconds is not None:
            waits.append(decision.gate.wait_seconds)
        if decision.look is not None and decision.look.wait_seconds is not None:
            waits.append(decision.look.wait_seconds)
        routed = decision.route.route.candidate if decision.route else None
        has_begun = decision.state is None or decision.state.step_time is not None
        if routed is not None and has_begun and seen.known_plan.analysis is not None:
            # Whatever keeps it where it is: what gateways count wakes nobody, and may take it back.
            waits.append(look_seconds(seen.known_plan))
        if self.manifest is not None and any(kind is ListSourceType.SECRET for kind, _ in list_sources(self.manifest)):
            waits.append(SECRET_POLL_SECONDS)
        return min(waits, default=None)


def _read_plan(manifest: Manifest, began_by: str) -> Plan:
    """Return the plan that a manifest says, also one that is refused, if it is the one named; else an empty one."""
    try:
        plan = parse_plan(manifest)
    except PolicyError:
        return Plan()
    return plan if name_plan(plan) == began_by else Plan()


def _read_judged(candidate: Candidate | None, rollout: str) -> Known:
    """Return how many decisions of this try of a rollout were known of when the status was written."""
    if candidate is None or candidate.rollout != rollout:
        return Known()
    return Known(stable=candidate.stable_judged, candidate=candidate.candidate_judged)


def _add_up(counted: Counted) -> Tally:
    """Return what was counted since the beginning, with what is known to be missing of it."""
    found = tally(counted.processes, counted.baseline)
    lost = counted.judged.beyond(found.made) if counted.lost is None else counted.lost
    return replace(found, lost=lost, doubted=counted.doubted)


def _compare(stable: Manifest, candidate: Revision, categories: Sequence[str]) -> Refused | bool:
    """Return why a change is refused, or True when it is proven; what is stable and was altered proves nothing."""
    try:
        before = read_revision(stored_revision(stable))
    except BaleenError:
        return True
    return refuse_unproven(before, read_revision(candidate), categories) or True


def _as_written(manifest: Manifest) -> Mapping[str, Any]:
    """Say what every resource of its kind says: what lists give does not."""
    return {"apiVersion": API_VERSION, "kind": POLICY_KIND} | dict(manifest)


def _read_override(manifest: Manifest | None) -> tuple[Override | None, str]:
    if manifest is None:
        return None, ""
    try:
        return parse_override(manifest), ""
    except InvalidError as exc:
        return None, say_problems(exc.problems)


def _read_seen_route(manifest: Manifest | None) -> SeenRoute | None:
    if manifest is None:
        return None
    metadata, spec = manifest["metadata"], manifest.get("spec")
    epoch = spec.get("epoch") if isinstance(spec, Mapping) else None
    try:
        published = read_route(manifest)
    except PolicyError:
        published = None
    return SeenRoute(
        uid=str(metadata.get("uid", "")),
        resource_version=str(metadata.get("resourceVersion", "")),
        epoch=epoch if isinstance(epoch, int) and not isinstance(epoch, bool) else 0,
        published=published,
        allow_delete=str((metadata.get("annotations") or {}).get(ALLOW_DELETE_ANNOTATION, "")),
    )


def _competes(meaning: Meaning) -> bool:
    return meaning.is_enforced and meaning.role is Role.POLICY


def _winner(rivals: Mapping[Key, str]) -> Key | None:
    """Return who wins: for one type and scope the earlier creation, then the first namespace and name."""
    return min(rivals, key=lambda key: (rivals[key], key), default=None)
