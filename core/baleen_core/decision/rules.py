"""Rules: typed CEL over the facts of one decision, compiled once; the only home of `cel_expr_python`.

A rule reads scores (`<model>.<signal>` with `_` for `-`, from 0.0 to 1.0), `content.*`, `author.*`, `context.*` and its
policy's `params.*`. Names and types are checked when it is compiled. Evaluation takes bounded time: there are no loops,
the functions are an explicit few, and a regular expression is a short literal.

What is not known stays unbound, and CEL's own logic decides whether it matters: `false && unknown` is false and
`true || unknown` is true. Where it does matter, a rule that waits for a failed model gives the policy's onModelFailure,
and a rule that waits for a fact that the caller did not send does not match. A score that was seen before its model
failed is read like any other, and the rule waits for the rest of it too.
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from cel_expr_python import cel

from baleen_core.decision.categories import is_unseen
from baleen_core.decision.cel_ast import Call, Loop, Node, Variable, read_nodes
from baleen_core.errors import PolicyError, Problem
from baleen_core.policy.schema import MAX_RULE_LENGTH, Rule, Verdict
from baleen_core.ratio import MILLION
from baleen_core.reading import CEL_KEYWORDS, show, unknown_name
from baleen_core.records import Evidence, Missing

MAX_REGEX_LENGTH: Final = 256
MAX_REGEX_EXPANSION: Final = 2_000
"""Characters of a regular expression times all its counted repetitions: what bounds the automaton that RE2 builds."""
MAX_REGEXES_PER_RULE: Final = 4

Value = str | int | float | bool

AUTHOR_FIELDS: Final[Mapping[str, type[str] | type[int] | type[bool]]] = MappingProxyType(
    {"id": str, "ageDays": int, "verified": bool, "strikes": int, "followers": int, "posts": int}
)
CONTEXT_FIELDS: Final = ("tenant", "surface", "source", "session")
CONTENT_FIELDS: Final[Mapping[str, tuple[type[str] | type[int], Callable[[Evidence], Value]]]] = MappingProxyType(
    {
        "type": (str, lambda evidence: evidence.content.type),
        "length": (int, lambda evidence: evidence.content.length),
        "links": (int, lambda evidence: evidence.content.links),
        # Unknown is the empty string: it is a fact about the content, not something that the caller left out.
        "language": (str, lambda evidence: evidence.language or ""),
        "mediaType": (str, lambda evidence: evidence.content.media_type),
        "width": (int, lambda evidence: evidence.content.width),
        "height": (int, lambda evidence: evidence.content.height),
    }
)

FUNCTIONS: Final = ("contains", "double", "endsWith", "int", "matches", "size", "startsWith", "string")
_OPERATORS: Final = frozenset(
    {"_&&_", "_||_", "!_", "_?_:_", "_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_", "@in"}
    | {"_+_", "_-_", "_*_", "_/_", "_%_", "-_", "_[_]"}
)
# Of these CEL refuses all at the beginning of a name, and after a dot only its keywords.
_RESERVED: Final = CEL_KEYWORDS | frozenset(
    {"as", "break", "const", "continue", "else", "for", "function", "if", "import", "let", "loop"}
    | {"namespace", "package", "return", "var", "void", "while"}
)
_NAMESPACES: Final = frozenset({"author", "content", "context", "params"})
_MAX_UNKNOWN_ROUNDS: Final = 8
# To make one takes ten times as long as to compile a rule in it, and each rule is compiled when its policy is checked,
# tested and loaded, and again whenever its folder is read.
_KEPT_ENVIRONMENTS: Final = 64

_CEL_TYPES: Final[Mapping[type, cel.Type]] = {
    str: cel.Type.STRING,
    int: cel.Type.INT,
    float: cel.Type.DOUBLE,
    bool: cel.Type.BOOL,
}
_ERROR_LINE: Final = re.compile(r"ERROR: <input>:(-?\d+):(-?\d+): (.*)")
_UNDECLARED: Final = re.compile(r"undeclared reference to '([^']*)'")
_STRING_LITERAL: Final = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'", re.DOTALL)
_HAS: Final = re.compile(r"\bhas\s*\(")
_SIGNAL_VARIABLE: Final = re.compile(r"[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*")
_COUNTED: Final = re.compile(r"\{(\d+)(?:,(\d*))?\}")
_REGEX_CHECK: Final = cel.NewEnv(variables={"regex": cel.Type.STRING}).compile("''.matches(regex)")


class RuleStatus(StrEnum):
    """What became of a rule."""

    MATCHED = "Matched"
    NOT_MATCHED = "NotMatched"
    NOT_APPLIED = "NotApplied"
    """A fact that it needs was not sent, or not one frame of a video was seen."""
    FAILED = "Failed"
    """It did not match, and a signal that it needs has no score, or one of a part of the content only."""
    ERROR = "Error"
    """It could not be evaluated, such as a division by zero."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleOutcome:
    """What became of a rule, and why; `failed` are the signals that it reads and that have no score, or a partial one.

    It `waits` when the scores that are not known could change the outcome.
    """

    status: RuleStatus
    why: str = ""
    failed: tuple[str, ...] = ()
    waits: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """What rules may read: the type of each variable, the signal behind each score, and the values of `params.*`."""

    env: cel.Env
    names: frozenset[str]
    signals: Mapping[str, str]
    parameters: Mapping[str, Value]


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledRule:
    """A rule that is ready to run, and exactly what it reads: (variable, what is behind it)."""

    name: str
    action: Verdict
    reason: str
    expression: cel.Expression
    signals: tuple[tuple[str, str], ...]
    content: tuple[tuple[str, Callable[[Evidence], Value]], ...]
    author: tuple[tuple[str, str], ...]
    context: tuple[tuple[str, str], ...]
    parameters: Mapping[str, Value]


_MATCHED: Final = RuleOutcome(status=RuleStatus.MATCHED)
NOT_MATCHED: Final = RuleOutcome(status=RuleStatus.NOT_MATCHED)
"""Of nearly every rule on nearly all content: one object for all of it."""


def signal_variable(signal: str) -> str:
    """Name the variable of a signal: `image-safety.sexual` is read as `image_safety.sexual`, for `-` is a minus."""
    model, _, name = signal.partition(".")
    return f"{model.replace('-', '_')}.{name}"


def parse_parameter(text: str) -> Value:
    """Read a parameter as rules see it: a number is a double, true and false are booleans, all else is a string."""
    if text in ("true", "false"):
        return text == "true"
    return float(text) if re.fullmatch(r"[+-]?\d+(\.\d+)?", text, re.ASCII) else text


def declare(signals: Collection[str], parameters: Mapping[str, str]) -> Declared:
    """Declare everything that the rules of one policy may read."""
    return _declare(frozenset(signals), tuple(parameters.items()))


@lru_cache(maxsize=_KEPT_ENVIRONMENTS)
def _declare(signals: frozenset[str], parameters: tuple[tuple[str, str], ...]) -> Declared:
    scores = (signal for signal in sorted(signals, reverse=True) if signal.split(".")[0] not in _NAMESPACES)
    behind = {signal_variable(signal): signal for signal in scores}
    values = {f"params.{name}": parse_parameter(value) for name, value in parameters}
    types: dict[str, type] = dict.fromkeys(behind, float)
    types |= {f"author.{name}": kind for name, kind in AUTHOR_FIELDS.items()}
    types |= {f"context.{name}": str for name in CONTEXT_FIELDS}
    types |= {f"content.{name}": kind for name, (kind, _) in CONTENT_FIELDS.items()}
    types |= {name: type(value) for name, value in values.items()}
    env = cel.NewEnv(variables={name: _CEL_TYPES[kind] for name, kind in types.items()})
    return Declared(env=env, names=frozenset(types), signals=behind, parameters=values)


def compile_rule(rule: Rule, declared: Declared, *, field: str = "when") -> CompiledRule:
    """Check a rule and make it ready to run; `field` is where its expression stands.

    Raises:
        PolicyError: names, types or syntax are wrong, or it could run for long; with everything that is wrong.
    """
    if len(rule.when) > MAX_RULE_LENGTH:
        message = f"has {len(rule.when)} characters; a rule may have at most {MAX_RULE_LENGTH}"
        raise PolicyError([Problem(field=field, message=message)])
    try:
        expression = declared.env.compile(rule.when)
    except RuntimeError as error:
        messages = _explain_compile_error(str(error), rule.when, declared)
        raise PolicyError([Problem(field=field, message=message) for message in messages]) from None
    nodes = tuple(read_nodes(expression.serialize()))
    if messages := _find_faults(rule.when, expression, nodes):
        raise PolicyError([Problem(field=field, message=message) for message in messages])
    return _bind(rule, expression, nodes, declared)


def compile_stored_rule(rule: Rule, signals: Collection[str], parameters: Mapping[str, str]) -> CompiledRule:
    """Make a rule of a stored revision ready to run, even if it reads scores that no model offers now.

    Raises:
        PolicyError: it is wrong in any other way.
    """
    known = set(signals)
    for _ in range(_MAX_UNKNOWN_ROUNDS):
        declared = declare(known, parameters)
        try:
            return compile_rule(rule, declared)
        except PolicyError:
            unknown = _find_unknown_signals(rule.when, declared)
            if not unknown:
                raise
            known |= unknown
    return compile_rule(rule, declare(known, parameters))


def apply_rule(rule: CompiledRule, evidence: Evidence) -> RuleOutcome:
    """Evaluate a rule on evidence."""
    facts = dict(rule.parameters)
    for variable, read in rule.content:
        facts[variable] = read(evidence)
    failed = _bind_signals(rule, evidence, facts) if rule.signals else ()
    absent = _bind_sent(rule, evidence, facts) if rule.author or rule.context else ()
    result = _evaluate(rule.expression, facts)
    if not failed and result is False:
        return NOT_MATCHED
    if not failed and result is True:
        return _MATCHED
    if failed and is_unseen(evidence):
        return _judge_unseen(result)
    if failed:
        return _judge_failed(rule, evidence, facts, failed, result)
    if absent:
        return RuleOutcome(status=RuleStatus.NOT_APPLIED, why=f"the caller did not send {', '.join(absent)}")
    return RuleOutcome(status=RuleStatus.ERROR, why=_one_line(str(result)))


def _judge_failed(
    rule: CompiledRule, evidence: Evidence, facts: Mapping[str, Value], failed: tuple[str, ...], result: object
) -> RuleOutcome:
    in_part = {variable for variable, signal in rule.signals if signal in failed and variable in facts}
    known = {name: value for name, value in facts.items() if name not in in_part}
    waits = not isinstance(_evaluate(rule.expression, known) if in_part else result, bool)
    if result is True:
        return RuleOutcome(status=RuleStatus.MATCHED, failed=failed, waits=waits)
    if not waits:
        return RuleOutcome(status=RuleStatus.NOT_MATCHED, failed=failed)
    named = [f"{signal} (of all of the content)" if signal in evidence.signals else signal for signal in failed]
    return RuleOutcome(status=RuleStatus.FAILED, why=f"no score for {', '.join(named)}", failed=failed, waits=True)


def _judge_unseen(result: object) -> RuleOutcome:
    if isinstance(result, bool):
        return _MATCHED if result else NOT_MATCHED
    return RuleOutcome(status=RuleStatus.NOT_APPLIED, why="no frame of the video could be judged")


def _evaluate(expression: cel.Expression, facts: Mapping[str, Value]) -> object:
    """Return true or false, or what went wrong."""
    try:
        return expression.eval(None, facts).value()
    except RuntimeError as error:  # a string that is no Unicode, such as half of a surrogate pair
        return error


def _bind_signals(rule: CompiledRule, evidence: Evidence, facts: dict[str, Value]) -> tuple[str, ...]:
    """Bind the scores at hand; return the signals that failed, even after a part, or are not served."""
    failed: tuple[str, ...] = ()
    for variable, signal in rule.signals:
        score = evidence.signals.get(signal)
        if score is not None:
            facts[variable] = score / MILLION
            if _is_partial(signal, evidence):
                failed += (signal,)
        elif evidence.missing.get(signal) is Missing.NOT_APPLICABLE:
            facts[variable] = 0.0
        else:
            failed += (signal,)
    return failed


def _is_partial(signal: str, evidence: Evidence) -> bool:
    if evidence.missing.get(signal) is Missing.FAILED:
        return True
    return any(signal not in frame.signals for frame in evidence.frames)


def _bind_sent(rule: CompiledRule, evidence: Evidence, facts: dict[str, Value]) -> tuple[str, ...]:
    """Bind what the caller sent; return the variables that it did not send."""
    absent: tuple[str, ...] = ()
    for variable, name in rule.author:
        if (value := evidence.context.author.get(name)) is not None:
            facts[variable] = value
        else:
            absent += (variable,)
    for variable, name in rule.context:
        if (value := getattr(evidence.context, name)) is not None:
            facts[variable] = value
        else:
            absent += (variable,)
    return absent


def _bind(rule: Rule, expression: cel.Expression, nodes: tuple[Node, ...], declared: Declared) -> CompiledRule:
    variables = sorted({node.name.removeprefix(".") for node in nodes if isinstance(node, Variable)})

    def in_namespace(namespace: str) -> tuple[tuple[str, str], ...]:
        wanted = [name for name in variables if name.startswith(f"{namespace}.") and name not in declared.signals]
        return tuple((name, name.removeprefix(f"{namespace}.")) for name in wanted)

    return CompiledRule(
        name=rule.name,
        action=rule.action,
        reason=rule.reason,
        expression=expression,
        signals=tuple((name, declared.signals[name]) for name in variables if name in declared.signals),
        content=tuple((name, CONTENT_FIELDS[key][1]) for name, key in in_namespace("content")),
        author=in_namespace("author"),
        context=in_namespace("context"),
        parameters={name: declared.parameters[name] for name, _ in in_namespace("params")},
    )


def _find_faults(text: str, expression: cel.Expression, nodes: tuple[Node, ...]) -> list[str]:
    """Say why an expression that compiles may not be a rule."""
    faults = []
    if (result := expression.return_type().name()) != "BOOL":
        faults.append(f"gives {_type_name(result)}; a rule must give true or false")
    if any(isinstance(node, Loop) for node in nodes):
        faults.append("loops (all, exists, exists_one, filter, map); a rule must run in bounded time, so write it out")
    if _HAS.search(_STRING_LITERAL.sub("''", text)):
        faults.append("uses has(), which is not needed: a rule that waits for a fact that was not sent does not match")
    calls = [node for node in nodes if isinstance(node, Call)]
    for function in sorted({call.function for call in calls} - _OPERATORS - set(FUNCTIONS)):
        # Inside of a loop CEL calls its own functions, which nobody wrote.
        if not function.startswith("@"):
            faults.append(f"calls {function}(); the functions of a rule are {', '.join(FUNCTIONS)}")
    regexes = [call.last for call in calls if call.function == "matches"]
    if len(regexes) > MAX_REGEXES_PER_RULE:
        faults.append(f"calls matches() {len(regexes)} times; at most {MAX_REGEXES_PER_RULE} are allowed in a rule")
    return faults + [fault for regex in regexes if (fault := _find_regex_fault(regex))]


def _find_regex_fault(regex: str | None) -> str | None:
    if regex is None:
        return "calls matches() with something that is not a string literal; write the regular expression out"
    if len(regex) > MAX_REGEX_LENGTH:
        return f"has a regular expression of {len(regex)} characters; at most {MAX_REGEX_LENGTH} are allowed"
    if re.search(r"\\[pP]", regex):
        return r"has a regular expression with \p, which is slow; list the ranges, such as [a-zà-ÿ]"
    expansion = max(1, len(regex))
    for counted in _COUNTED.finditer(regex):
        expansion *= max(1, int((counted[2] or counted[1])[:9]))
    if expansion > MAX_REGEX_EXPANSION:
        return (
            f"has a regular expression whose length times its counted repetitions is {expansion}; "
            f"at most {MAX_REGEX_EXPANSION} are allowed"
        )
    result = _REGEX_CHECK.eval(data={"regex": regex}).value()
    return None if isinstance(result, bool) else f"has a regular expression that is wrong: {_one_line(str(result))}"


def _find_unknown_signals(text: str, declared: Declared) -> set[str]:
    """Name the signals that a stored rule reads and nobody declares (no model's name has a `_`)."""
    try:
        declared.env.compile(text)
    except RuntimeError as error:
        names = {name for name in _UNDECLARED.findall(str(error)) if _SIGNAL_VARIABLE.fullmatch(name)}
        parts = [name.split(".") for name in names]
        return {f"{model.replace('_', '-')}.{signal}" for model, signal in parts if model not in _NAMESPACES}
    return set()


def _explain_compile_error(error: str, text: str, declared: Declared) -> list[str]:
    found = _ERROR_LINE.findall(error)
    if not found or "recursion" in error:
        nested = "recursion" in error
        return ["is nested too deeply; at most 32 levels are allowed" if nested else f"is no CEL: {_one_line(error)}"]
    if unreadable := _find_unreadable(text, declared):
        return unreadable
    hyphenated = [name for name in declared.signals.values() if "-" in name and name in text]
    if hyphenated and _UNDECLARED.search(error):
        return [f"{name!r} is read as {signal_variable(name)!r} in a rule, for '-' is a minus" for name in hyphenated]
    messages = [f"line {line}, column {column}: {_explain_fault(message, declared)}" for line, column, message in found]
    # One slip of the pen sets off several syntax errors; the first is the one to mend.
    return messages[:1] if "Syntax error" in messages[0] else messages


def _find_unreadable(text: str, declared: Declared) -> list[str]:
    """Name the models that a rule reads and whose names cannot begin a name in CEL."""
    messages = {}
    for variable, signal in declared.signals.items():
        model = signal.partition(".")[0]
        if model in _RESERVED:
            why = "is a reserved word of CEL"
        elif model[0].isdigit():
            why = "begins with a digit"
        else:
            continue
        if re.search(rf"(?<![\w.-])(?:{re.escape(variable)}|{re.escape(signal)})(?!\w)", text):
            messages[model] = (
                f"cannot read the scores of the model {show(model)}, whose name {why}; use them in categories"
            )
    return list(messages.values())


def _explain_fault(message: str, declared: Declared) -> str:
    message = re.sub(r" \(in container ''\)| \[[A-Z_]+\]$", "", message)
    if undeclared := _UNDECLARED.search(message):
        return _explain_unknown(undeclared[1], declared)
    message = re.sub(r"'_?([^'_]+)_?_?'", r"'\1'", message) if "overload" in message else message
    if "double, int" in message or "int, double" in message:
        message += "; write 1.0 beside a score or a parameter, 1 beside a count, or convert with double()"
    message = re.sub(r" expecting \{.*", ", which cannot stand here", message)
    return message.replace("'<EOF>'", "the end of the rule").replace("<EOF>", "the end of the rule")


def _explain_unknown(name: str, declared: Declared) -> str:
    if "." not in name and name not in _NAMESPACES:
        return (
            f"unknown name {name!r}; a rule reads author.*, content.*, context.*, params.* and scores such as "
            f"{min(declared.signals, default='image_safety.sexual')}, and may call {', '.join(FUNCTIONS)}"
        )
    namespace = name.split(".")[0]
    siblings = {known for known in declared.names if known.startswith(f"{namespace}.")}
    return unknown_name(name, siblings or declared.signals, "name")


def _type_name(cel_type: str) -> str:
    names = {"STRING": "a string", "INT": "a whole number", "DOUBLE": "a number", "DYN": "a value of unknown type"}
    return names.get(cel_type, f"a value of type {cel_type.lower()}")


def _one_line(error: str) -> str:
    """Strip CEL's status codes and drawings from an error."""
    line = re.sub(r"\s*\n\s*\|[^\n]*", "", error)
    line = re.sub(r"^[A-Z_]+: (ERROR: )?|\s*\[[A-Z_]+\]$", "", line)
    return " ".join(line.split())
