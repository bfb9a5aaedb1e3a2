"""Logs as JSON lines: one event, its fields (`kind`, `namespace` and `name` of what it is about), nothing secret."""

import json
import logging
from datetime import UTC, datetime
from typing import Final

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_OF_KOPF: Final = frozenset({"settings", "k8s_skip", "k8s_ref"})


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (RFC 3339, UTC), level, logger, event, and the fields of `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a record as one line."""
        event: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        # A field of `extra` cannot be called `name`: that is the logger's.
        event |= {
            field.removeprefix("object_"): value
            for field, value in vars(record).items()
            if field not in _STANDARD and field not in _OF_KOPF
        }
        if record.exc_info:
            event["exception"] = self.formatException(record.exc_info)
        return json.dumps(event, default=str, ensure_ascii=False)


def about(kind: str, namespace: str, name: str, **fields: object) -> dict[str, object]:
    """Return the `extra` of an event that is about a resource."""
    return {"object_kind": kind, "object_namespace": namespace, "object_name": name, **fields}


def set_up_logging(level: str = "INFO") -> None:
    """Send everything to standard error in that form."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # Python would write them as lines of another form.
    logging.captureWarnings(True)
    # kopf tells of each handler that it called, and warns that it does not see signals, which `main` does.
    logging.getLogger("kopf").setLevel("WARNING")
    logging.getLogger("kopf._core.reactor.running").setLevel("ERROR")
    logging.getLogger("aiohttp.access").disabled = True
