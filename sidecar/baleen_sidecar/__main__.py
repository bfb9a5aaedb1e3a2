"""Run a gateway, or a sidecar that follows one: `python -m baleen_sidecar`."""

import logging
import os
import sys
from typing import Final

from baleen_core.errors import BaleenError, InvalidError
from baleen_core.importing import lasting

with lasting():
    import uvloop

    from baleen_sidecar.following import follow
    from baleen_sidecar.logs import set_up_logging
    from baleen_sidecar.main import ended_by_signals
    from baleen_sidecar.settings import ClusterSettings, Settings

logger = logging.getLogger("baleen_sidecar")

EXIT_SETTINGS: Final = 2


def main() -> int:
    """Serve until told to end; return the exit code."""
    set_up_logging()
    try:
        settings, cluster = ClusterSettings.from_env(os.environ)
        set_up_logging(cluster.log_level)
        uvloop.run(_follow_until_ended(settings, cluster))
    except InvalidError as exc:
        for problem in exc.problems:
            logger.error("a setting is wrong", extra={"setting": problem.field, "problem": problem.message})
        return EXIT_SETTINGS
    except BaleenError as exc:
        logger.error("cannot start", extra={"reason": str(exc)})
        return 1
    return 0


async def _follow_until_ended(settings: Settings, cluster: ClusterSettings) -> None:
    with ended_by_signals():
        await follow(settings, cluster, os.environ)


if __name__ == "__main__":
    sys.exit(main())
