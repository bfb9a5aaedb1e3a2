"""Logs as JSON lines: one event, its fields, nothing secret. Content and credentials are never logged."""

import json
import logging
from datetime import UTC, datetime
from typing import Final

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}


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
        event |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if record.exc_info:
            event["exception"] = self.formatException(record.exc_info)
        return json.dumps(event, default=str, ensure_ascii=False)


def set_up_logging(level: str = "INFO") -> None:
    """Send everything to standard error in that form."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # Python would write them as lines of another form.
    logging.captureWarnings(True)
    # One line a request would be the largest part of the log; metrics count requests.
    logging.getLogger("uvicorn.access").disabled = True
    # The same, and it would show the addresses that callers give.
    logging.getLogger("httpx").setLevel(logging.WARNING)
