"""From a ModerationPolicy as YAML gives it to a typed one, or everything that is wrong with it at once."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeVar

from baleen_core.analysis.metrics import MAX_LOOKS, MEASURED, PAIRED, Metric, MetricType, Mode
from baleen_core.analysis.query import MAX_QUERY_LENGTH, check_query
from baleen_core.assignment import DEFAULT_KEYS, FULL, StickyKey
from baleen_core.errors import PolicyError, Problem
from baleen_core.policy.schema import (
    API_VERSION,
    DEFAULT_ANALYSIS_SECONDS,
    DEFAULT_CONFIDENCE,
    DEFAULT_PROGRESS_DEADLINE_SECONDS,
    DEFAULT_REVISION_HISTORY,
    DEFAULT_ROLLBACK_WINDOW,
    MAX_BACKTEST_DECISIONS,
    MAX_CATEGORIES,
    MAX_LISTS,
    MAX_METRICS,
    MAX_MODELS,
    MAX_NAME_LENGTH,
    MAX_PARAMETERS,
    MAX_QUERIES,
    MAX_RETENTION_DAYS,
    MAX_REVISION_HISTORY,
    MAX_ROLLBACK_WINDOW,
    MAX_RULE_LENGTH,
    MAX_RULES,
    MAX_SIGNALS_PER_CATEGORY,
    MAX_STEP_DECISIONS,
    MAX_STEP_SECONDS,
    MAX_STEPS,
    MAX_TENANTS,
    MAX_TESTS,
    AnalysisPlan,
    BacktestGate,
    Category,
    Enforcement,
    Gates,
    ListSource,
    ListSourceType,
    ListType,
    ModelRequirement,
    OnDeadline,
    OnInconclusive,
    OnLanguageUnsupported,
    OnModelFailure,
    OnSignalMissing,
    Plan,
    Policy,
    PolicyContent,
    PolicyList,
    PolicyTest,
    Require,
    Requirement,
    Retention,
    Role,
    Rule,
    Scope,
    Step,
    StepType,
    Threshold,
    Until,
    Verdict,
    VideoSettings,
    judges_somebody,
)
from baleen_core.ratio import MILLION, format_ratio
from baleen_core.reading import (
    SIGNAL_NAME,
    Reader,
    boolean,
    integer,
    name,
    number,
    one_of,
    pattern,
    ratio,
    readable,
    report_duplicates,
    show,
    text,
    unknown_name,
)

KIND: Final = "ModerationPolicy"
DEFAULT_NAMESPACE: Final = "default"
DEFAULT_MAX_DISTANCE: Final = 31
"""Bits of 256 in which PDQ hashes of the same picture may differ, as PDQ's authors recommend."""

_CODES: Final = (
    "amh=am ara=ar aze=az bel=be bul=bg ben=bn cat=ca ces=cs dan=da deu=de ell=el eng=en spa=es est=et eus=eu fas=fa "
    "fin=fi fra=fr guj=gu heb=he hin=hi hrv=hr hun=hu hye=hy isl=is ita=it jpn=ja kat=ka kan=kn kor=ko kur=ku lao=lo "
    "lit=lt lav=lv mal=ml mar=mr msa=ms nld=nl nor=no ori=or pan=pa pol=pl por=pt ron=ro rus=ru slk=sk slv=sl sqi=sq "
    "srp=sr swe=sv tam=ta tel=te tha=th tgl=tl tur=tr ukr=uk urd=ur vie=vi yor=yo zho=zh"
)
_SHORT_CODES: Final = dict(code.split("=") for code in _CODES.split())
LANGUAGES: Final = frozenset(_SHORT_CODES.values())
"""The languages (ISO 639-1) that can be told from a text; a category for any other would be silent for ever."""

MAX_DISTANCE: Final = 64
MAX_LANGUAGES: Final = 64
MAX_FRAMES_PER_MINUTE: Final = 3600
MAX_TEST_TEXT: Final = 4096
MAX_TEST_SIGNALS: Final = 256
MAX_TEXT: Final = 256
MAX_DESCRIPTION: Final = 1024

_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_PLACE: Final = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"

_signal = pattern(
    rf"{_LABEL}\.{SIGNAL_NAME}", "a signal; write <model>.<signal>, such as toxicity.insult", max_length=127
)
type_word = pattern(
    r"[A-Za-z][A-Za-z0-9-]{0,62}", "a type; write one word, such as Moderation", max_length=MAX_NAME_LENGTH
)
place = pattern(
    _PLACE, "a name of letters, digits and . _ - within; to mean any, leave the field out", max_length=MAX_NAME_LENGTH
)
_source_path = pattern(
    rf"{_PLACE}(?:/{_PLACE})*(?:/\*)?",
    "a path such as site-7/camera-3 or site-7/*; to mean any, leave the field out",
    max_length=253,
)
exact_source = pattern(rf"{_PLACE}(?:/{_PLACE})*", "a path such as site-7/camera-3", max_length=253)
"""A source that content comes from, where a policy's may stand for several."""
_object_name = pattern(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?", "the name of a ConfigMap or Secret", max_length=253)
_object_key = pattern(r"[A-Za-z0-9._-]+", "a key of a ConfigMap or Secret", max_length=253)
digest = pattern(r"sha256:[0-9a-f]{64}", "a digest: sha256: and 64 lower-case hexadecimal digits", max_length=71)
_parameter = readable(
    pattern(r"[A-Za-z_][A-Za-z0-9_]*", "a parameter's name of letters, digits and _", max_length=MAX_NAME_LENGTH)
)
_author_field = pattern(r"[A-Za-z][A-Za-z0-9]*", "a field of an author, such as ageDays", max_length=MAX_NAME_LENGTH)
_version = text(max_length=MAX_NAME_LENGTH)

M = TypeVar("M", bound=StrEnum)


@dataclass(frozen=True, slots=True, kw_only=True)
class Notation:
    """What differs between a policy as authors and as revisions write it: ratios, and what a list points at."""

    ratio: Callable[[object], int]
    is_revision: bool


_AUTHORED: Final = Notation(ratio=ratio, is_revision=False)


def parse_policy(manifest: Mapping[str, object]) -> Policy:
    """Read a policy from its whole manifest.

    Raises:
        PolicyError: lists every problem, each with its field's path and what would be right.
    """
    problems: list[Problem] = []
    policy = _read_manifest(Reader(manifest, "", problems))
    if problems:
        raise PolicyError(problems)
    return policy


def _read_manifest(manifest: Reader) -> Policy:
    read_header(manifest, kind=KIND)
    metadata = manifest.mapping("metadata", required=True)
    spec = manifest.mapping("spec", required=True)
    manifest.done()
    return _read_spec(
        spec,
        name=metadata.required("name", name, ""),
        namespace=metadata.optional("namespace", name, DEFAULT_NAMESPACE),
    )


def parse_plan(manifest: Mapping[str, object]) -> Plan:
    """Read how an edit goes live from a policy's manifest, whatever else that says.

    Raises:
        PolicyError: lists every problem of `spec.rollout`.
    """
    problems: list[Problem] = []
    plan, _ = _read_rollout(Reader(manifest, "", problems).mapping("spec").mapping("rollout"))
    if problems:
        raise PolicyError(problems)
    return plan


def read_header(manifest: Reader, *, kind: str) -> None:
    """Check that a manifest is of the group, version and kind that it is taken for, and pass over its status."""
    for field, expected in (("apiVersion", API_VERSION), ("kind", kind)):
        found = manifest.required(field, text(max_length=MAX_TEXT), expected)
        if found != expected:
            manifest.report(field, f"{show(found)} is not {expected}")
    manifest.has("status")


def _read_spec(spec: Reader, *, name: str, namespace: str) -> Policy:
    plan, rollback_window = _read_rollout(spec.mapping("rollout"))
    content = spec.mapping("policy", required=True)
    read = read_content(content, _AUTHORED)
    gates = _read_gates(spec.mapping("gates"), {each.name for each in read.categories})
    policy = Policy(
        name=name,
        namespace=namespace,
        scope=read_scope(spec.mapping("scope")),
        type=spec.optional("type", type_word, "Moderation"),
        role=spec.optional("role", one_of(Role), Role.POLICY),
        version=spec.optional("version", _version, ""),
        description=spec.optional("description", text(min_length=0, max_length=MAX_DESCRIPTION), ""),
        content=read,
        tests=_read_tests(spec),
        paused=spec.optional("paused", boolean, False),
        gates=gates,
        plan=plan,
        rollback_window=rollback_window,
        revision_history_limit=spec.optional(
            "revisionHistoryLimit", integer(0, MAX_REVISION_HISTORY), DEFAULT_REVISION_HISTORY
        ),
    )
    spec.done()
    return policy


def _read_gates(gates: Reader, categories: Collection[str]) -> Gates:
    backtest = gates.mapping("backtest") if gates.has("backtest") else None
    found = Gates(
        never_loosen=gates.values("neverLoosen", name, limit=MAX_CATEGORIES),
        backtest=read_backtest(backtest) if backtest else None,
    )
    if backtest:
        if backtest.is_mapping and not (backtest.has("maxFlipRate") or backtest.has("maxNewBlocks")):
            backtest.report("", "has no limit, so it would stop nothing; give maxFlipRate, maxNewBlocks or both")
        backtest.done()
    for each in found.never_loosen:
        if categories and each not in categories:
            gates.report("neverLoosen", unknown_name(each, categories, "category"))
    gates.done()
    return found


def read_backtest(backtest: Reader) -> BacktestGate | None:
    """Read a gate of logged decisions; None, with its problem, where there are not so many."""
    decisions = backtest.required("decisions", integer(1, MAX_BACKTEST_DECISIONS), 0)
    limits = [backtest.optional(each, ratio, None) for each in ("maxFlipRate", "maxNewBlocks")]
    return BacktestGate(decisions=decisions, max_flip_rate=limits[0], max_new_blocks=limits[1]) if decisions else None


def _read_rollout(rollout: Reader) -> tuple[Plan, int]:
    """Return how an edit goes live, and the rollback window."""
    readers = rollout.mappings("steps", limit=MAX_STEPS)
    steps = tuple(map(_read_step, readers))
    report_duplicates(readers, [step.name for step in steps], "name")
    plan = Plan(
        keys=rollout.values("keys", one_of(StickyKey), limit=len(StickyKey)) or DEFAULT_KEYS,
        steps=steps,
        progress_deadline_seconds=rollout.optional(
            "progressDeadlineSeconds", integer(1, MAX_STEP_SECONDS), DEFAULT_PROGRESS_DEADLINE_SECONDS
        ),
        on_deadline=rollout.optional("onDeadline", one_of(OnDeadline), OnDeadline.HOLD),
        analysis=_read_analysis(rollout.mapping("analysis"), steps) if rollout.has("analysis") else None,
    )
    window = rollout.optional("rollbackWindow", integer(0, MAX_ROLLBACK_WINDOW), DEFAULT_ROLLBACK_WINDOW)
    rollout.done()
    return plan, window


def _read_analysis(analysis: Reader, steps: Sequence[Step]) -> AnalysisPlan:
    readers = analysis.mappings("metrics", limit=MAX_METRICS)
    if analysis.is_mapping and not readers:
        analysis.report("metrics", "is required and has at least one metric")
    metrics = [_read_metric(each) for each in readers]
    report_duplicates(readers, [metric.name if metric else "" for metric in metrics], "name")
    if steps and not any(0 < step.weight_basis_points < FULL for step in steps):
        for reader, metric in zip(readers, metrics, strict=True):
            if metric and metric.type not in PAIRED and metric.type is not MetricType.PROMQL:
                message = "compares the candidate's part of the content with the rest"
                reader.report("type", f"{metric.type} {message}; have a step of type Weight above 0% and below 100%")
    for reader, metric in zip(readers, metrics, strict=True):
        if metric and metric.is_about_candidate and steps and not any(map(judges_somebody, steps)):
            reader.report(
                "query", "$candidate judges nobody by these steps; have one of type Weight above 0%, or Match"
            )
    if sum(metric is not None and metric.type is MetricType.PROMQL for metric in metrics) > MAX_QUERIES:
        analysis.report("metrics", f"has more than {MAX_QUERIES} (MAX_QUERIES) metrics of type PromQL")
    found = AnalysisPlan(
        metrics=tuple(metric for metric in metrics if metric),
        interval_seconds=analysis.optional("intervalSeconds", integer(1, MAX_STEP_SECONDS), DEFAULT_ANALYSIS_SECONDS),
        confidence=analysis.optional("confidence", _confidence, DEFAULT_CONFIDENCE),
        on_inconclusive=analysis.optional("onInconclusive", one_of(OnInconclusive), OnInconclusive.HOLD),
    )
    analysis.done()
    return found


def _read_metric(metric: Reader) -> Metric | None:
    """Read what is compared; None, with its problem, where its limits do not fit."""
    named, type = metric.required("name", name, ""), metric.required("type", _measured, None)
    mode = metric.optional("mode", one_of(Mode), Mode.ENFORCE)
    increase, decrease = metric.optional("maxIncrease", ratio, None), metric.optional("maxDecrease", ratio, None)
    milliseconds = metric.optional("maxIncreaseMilliseconds", integer(0, 60_000), None)
    query = metric.optional("query", text(max_length=MAX_QUERY_LENGTH), None)
    minimum, maximum = metric.optional("min", number, None), metric.optional("max", number, None)
    looks = metric.optional("looks", integer(1, MAX_LOOKS), None)
    metric.done()
    if query is not None:
        try:
            check_query(query)
        except ValueError as exc:
            metric.report("query", str(exc))
    limits = {
        "maxIncrease": increase,
        "maxDecrease": decrease,
        "maxIncreaseMilliseconds": milliseconds,
        "query": query,
        "min": minimum,
        "max": maximum,
        "looks": looks,
    }
    # What is wrong by itself is named, and does not count as missing.
    if type is None or any(metric.has(each) and value is None for each, value in limits.items()):
        return None
    try:
        return Metric(
            name=named,
            type=type,
            mode=mode,
            max_increase=increase,
            max_decrease=decrease,
            max_increase_milliseconds=milliseconds,
            query=query,
            minimum=minimum,
            maximum=maximum,
            looks=looks,
        )
    except ValueError as exc:
        metric.report("", str(exc))
        return None


def _measured(value: object) -> MetricType:
    found = one_of(MetricType)(value)
    if found not in MEASURED:
        known = ", ".join(sorted(MEASURED))
        raise ValueError(not_yet(f"a metric of type {found} has no source before there is a review queue; use {known}"))
    return found


def _confidence(value: object) -> int:
    found = ratio(value)
    if not 0 < found < MILLION:
        raise ValueError(f"{show(value)} is not above 0% and below 100%")
    return found


def _read_step(step: Reader) -> Step:
    type = step.required("type", one_of(StepType), StepType.SHADOW)
    weight, tenants = 0, tuple[str, ...]()
    if type is StepType.WEIGHT:
        weight = step.required("weight", _basis_points, 0)
    else:
        step.refuse("weight", "belongs to a step of type Weight; leave it out")
    if type is StepType.MATCH:
        tenants = _read_match(step.mapping("match", required=True))
    else:
        step.refuse("match", "belongs to a step of type Match; leave it out")
    if type is StepType.APPROVAL:
        step.refuse("until", "an Approval lasts until somebody approves it; leave it out")
    found = Step(
        name=step.required("name", name, ""),
        type=type,
        weight_basis_points=weight,
        tenants=tenants,
        until=_read_until(step.mapping("until")),
    )
    step.done()
    return found


def _basis_points(value: object) -> int:
    found, rest = divmod(ratio(value), MILLION // FULL)
    if rest:
        raise ValueError(f"{show(value)} is finer than 0.01%; round it")
    return found


def _read_match(match: Reader) -> tuple[str, ...]:
    tenants = match.values("tenants", place, limit=MAX_TENANTS)
    if match.is_mapping and not tenants:
        match.report("tenants", "names nobody; name at least one tenant")
    match.done()
    return tenants


def _read_until(until: Reader) -> Until:
    seconds = integer(1, MAX_STEP_SECONDS)
    found = Until(
        seconds=until.optional("seconds", seconds, 0),
        decisions=until.optional("decisions", integer(1, MAX_STEP_DECISIONS), 0),
        timeout_seconds=until.optional("timeoutSeconds", seconds, None),
    )
    if found.timeout_seconds is not None and not found.decisions:
        until.report("timeoutSeconds", "is for a step that waits for decisions; write seconds, or decisions as well")
    elif found.timeout_seconds is not None and found.timeout_seconds < found.seconds:
        until.report("timeoutSeconds", f"is less than the {found.seconds} seconds that the step should last")
    until.done()
    return found


def read_scope(scope: Reader) -> Scope:
    """Read where a policy counts."""
    found = Scope(
        tenant=scope.optional("tenant", place, None),
        surface=scope.optional("surface", place, None),
        source=scope.optional("source", _source_path, None),
    )
    scope.done()
    return found


def read_content(content: Reader, notation: Notation) -> PolicyContent:
    """Read what is digested, as its author or as a revision writes it."""
    content.refuse("anonymization", not_yet("`anonymization` is not built yet; leave it out"))
    found = PolicyContent(
        enforcement=content.optional("enforcement", one_of(Enforcement), Enforcement.ENFORCE),
        categories=_read_categories(content, notation),
        lists=_read_lists(content, notation),
        rules=_read_rules(content),
        parameters=content.entries(
            "parameters", _parameter, text(min_length=0, max_length=MAX_TEXT), limit=MAX_PARAMETERS
        ),
        models=_read_models(content),
        on_model_failure=content.optional("onModelFailure", one_of(OnModelFailure), OnModelFailure.REVIEW),
        video=_read_video(content.mapping("video"), notation),
        retention=_read_retention(content.mapping("retention")),
    )
    if content.is_mapping and not (found.categories or found.lists or found.rules):
        content.report("", "says nothing; give it categories, lists or rules")
    content.done()
    return found


def _read_retention(retention: Reader) -> Retention:
    retention.refuse("media", not_yet("`retention.media` is not built yet; leave it out: no media are kept"))
    found = Retention(decisions_days=retention.optional("decisionsDays", integer(1, MAX_RETENTION_DAYS), None))
    retention.done()
    return found


def _read_categories(content: Reader, notation: Notation) -> tuple[Category, ...]:
    readers = content.mappings("categories", limit=MAX_CATEGORIES)
    categories = tuple(_read_category(reader, notation) for reader in readers)
    report_duplicates(readers, [category.name for category in categories], "name")
    return categories


def _read_category(category: Reader, notation: Notation) -> Category:
    signals = category.mappings("signals", limit=MAX_SIGNALS_PER_CATEGORY)
    thresholds = tuple(_read_threshold(signal, notation) for signal in signals)
    report_duplicates(signals, [threshold.signal for threshold in thresholds], "name")
    found = Category(
        name=category.required("name", name, ""),
        signals=thresholds,
        require=_read_requirement(category.mapping("require"), signals, thresholds),
        on_signal_missing=category.optional("onSignalMissing", one_of(OnSignalMissing), OnSignalMissing.MODEL_FAILURE),
        languages=category.values("languages", _language, limit=MAX_LANGUAGES),
        on_language_unsupported=category.optional("onLanguageUnsupported", one_of(OnLanguageUnsupported), None),
    )
    if category.is_mapping and not signals:
        category.report("signals", "needs at least one entry such as {name: toxicity.insult, review: 70%, block: 90%}")
    if len(set(found.languages)) < len(found.languages):
        category.report("languages", "names a language twice")
    if found.languages and not category.has("onLanguageUnsupported"):
        category.report("onLanguageUnsupported", "is required with languages: Skip or Review text in all others")
    if category.has("onLanguageUnsupported") and not found.languages:
        category.report("onLanguageUnsupported", "means nothing without languages; name them or leave it out")
    category.done()
    return found


def _read_threshold(signal: Reader, notation: Notation) -> Threshold:
    review = signal.optional("review", notation.ratio, None)
    block = signal.optional("block", notation.ratio, None)
    if signal.is_mapping and not signal.has("review") and not signal.has("block"):
        signal.report("", "has no threshold; give review, block or both")
    if review is not None and block is not None and review > block:
        signal.report(
            "review",
            f"{format_ratio(review)} is above block, {format_ratio(block)}, so it would never count; lower it",
        )
    found = Threshold(signal=signal.required("name", _signal, ""), review=review, block=block)
    signal.done()
    return found


def _read_requirement(require: Reader, signals: Sequence[Reader], thresholds: Sequence[Threshold]) -> Requirement:
    found = Requirement(
        review=require.optional("review", one_of(Require), Require.ANY),
        block=require.optional("block", one_of(Require), Require.ANY),
    )
    for verdict, wanted, given in (
        ("review", found.review, [signal.has("review") for signal in signals]),
        ("block", found.block, [signal.has("block") for signal in signals]),
    ):
        if wanted is Require.ALL and not all(given):
            without = ", ".join(each.signal for each, is_given in zip(thresholds, given, strict=True) if not is_given)
            require.report(verdict, f"All needs a {verdict} threshold for every signal; there is none for {without}")
    require.done()
    return found


def _read_lists(content: Reader, notation: Notation) -> tuple[PolicyList, ...]:
    readers = content.mappings("lists", limit=MAX_LISTS)
    lists = tuple(_read_list(reader, notation) for reader in readers)
    report_duplicates(readers, [each.name for each in lists], "name")
    return lists


def _read_list(reader: Reader, notation: Notation) -> PolicyList:
    kind = reader.required("type", one_of(ListType), ListType.TERMS)
    action = reader.required("action", one_of(Verdict), Verdict.BLOCK)
    if action is Verdict.ALLOW and kind is not ListType.DIGEST:
        reader.report(
            "action",
            f"Allow is for lists of type Digest only: with {kind.value}, all content that merely contains or resembles "
            "an entry would pass; use Review or Block",
        )
    max_distance = None
    if kind is ListType.PERCEPTUAL_HASH:
        max_distance = reader.optional("maxDistance", integer(0, MAX_DISTANCE), DEFAULT_MAX_DISTANCE)
    else:
        reader.refuse("maxDistance", f"is for lists of type PerceptualHash only, not {kind.value}; leave it out")
    found = PolicyList(
        name=reader.required("name", name, ""),
        type=kind,
        action=action,
        max_distance=max_distance,
        source=None if notation.is_revision else _read_source(reader.mapping("source", required=True)),
        digest=reader.required("digest", digest, "") if notation.is_revision else None,
    )
    reader.done()
    return found


def _read_source(source: Reader) -> ListSource:
    found = ListSource(
        type=_supported(source, "type", ListSourceType, None, later="Store"),
        name=source.required("name", _object_name, ""),
        key=source.required("key", _object_key, ""),
    )
    source.done()
    return found


def _read_rules(content: Reader) -> tuple[Rule, ...]:
    readers = content.mappings("rules", limit=MAX_RULES)
    rules = tuple(_read_rule(reader) for reader in readers)
    report_duplicates(readers, [rule.name for rule in rules], "name")
    return rules


def _read_rule(reader: Reader) -> Rule:
    action = reader.required("action", one_of(Verdict), Verdict.BLOCK)
    if action is Verdict.ALLOW:
        reader.report("action", "Allow would change nothing, since the strictest match counts; use Review or Block")
    found = Rule(
        name=reader.required("name", name, ""),
        when=reader.required("when", text(max_length=MAX_RULE_LENGTH), ""),
        action=action,
        reason=reader.optional("reason", text(min_length=0, max_length=MAX_TEXT), ""),
    )
    reader.done()
    return found


def _read_models(content: Reader) -> tuple[ModelRequirement, ...]:
    readers = content.mappings("models", limit=MAX_MODELS)
    models = tuple(_read_model(reader) for reader in readers)
    report_duplicates(readers, [model.name for model in models], "name")
    return models


def _read_model(reader: Reader) -> ModelRequirement:
    found = ModelRequirement(name=reader.required("name", name, ""), version=reader.required("version", _version, ""))
    reader.done()
    return found


def _read_video(video: Reader, notation: Notation) -> VideoSettings:
    for field, only in (
        ("windowMilliseconds", 10_000),
        ("overlapMilliseconds", 2_000),
        ("sampling", "Auto"),
        ("aggregation", "Max"),
    ):
        video.optional(field, _only(field, only), None)
    usual = VideoSettings()
    found = VideoSettings(
        frames_per_minute=video.optional("framesPerMinute", integer(1, MAX_FRAMES_PER_MINUTE), usual.frames_per_minute),
        early_exit=video.optional("earlyExit", boolean, usual.early_exit),
        min_coverage=video.optional("minCoverage", notation.ratio, usual.min_coverage),
    )
    video.done()
    return found


def _read_tests(spec: Reader) -> tuple[PolicyTest, ...]:
    readers = spec.mappings("tests", limit=MAX_TESTS)
    tests = tuple(_read_test(reader) for reader in readers)
    report_duplicates(readers, [test.name for test in tests], "name")
    return tests


def _read_test(reader: Reader) -> PolicyTest:
    found = PolicyTest(
        name=reader.required("name", text(max_length=MAX_NAME_LENGTH), ""),
        expect=reader.required("expect", one_of(Verdict), Verdict.BLOCK),
        signals=reader.entries("signals", _signal, ratio, limit=MAX_TEST_SIGNALS),
        text=reader.optional("text", text(min_length=0, max_length=MAX_TEST_TEXT), None),
        language=reader.optional("language", _language, None),
        author=reader.entries("author", _author_field, _author_value, limit=MAX_PARAMETERS),
    )
    reader.done()
    return found


def _language(value: object) -> str:
    code = text(max_length=MAX_NAME_LENGTH)(value)
    if code in LANGUAGES:
        return code
    # `eng` and `en-GB` are English too.
    base = code.lower().replace("_", "-").partition("-")[0]
    nearest = base if base in LANGUAGES else _SHORT_CODES.get(base)
    if nearest is None:
        raise ValueError(unknown_name(code, LANGUAGES, "language"))
    raise ValueError(f"unknown language {show(code)}; did you mean {nearest!r}?")


def _author_value(value: object) -> str | int | bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return integer(-(2**53), 2**53)(value)
    if isinstance(value, str):
        return text(min_length=0, max_length=MAX_TEXT)(value)
    raise ValueError(f"{show(value)} is not a string, a whole number, true or false")


def _supported(reader: Reader, field: str, enum: type[M], default: M | None, *, later: str) -> M:
    """Read a member of an enum, one more value of which is known but not built; without a default it is required."""

    def convert(value: object) -> M:
        if value == later:
            raise ValueError(not_yet(f"`{field}: {later}` is not built yet; use {' or '.join(enum)}"))
        return one_of(enum)(value)

    if default is None:
        return reader.required(field, convert, next(iter(enum)))
    return reader.optional(field, convert, default)


def _only(field: str, only: object) -> Callable[[object], object]:
    def convert(value: object) -> object:
        # Python holds 1.0 and True for equal to 1.
        if type(value) is not type(only) or value != only:
            raise ValueError(not_yet(f"`{field}` other than {only} is not built yet; leave it out"))
        return value

    return convert


def not_yet(message: str) -> str:
    """Mark a refusal of something that is known and that a later release will take."""
    return f"NotYetSupported: {message}"
