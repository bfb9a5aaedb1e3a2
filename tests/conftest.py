"""What holds for the whole suite."""

import os

from hypothesis import settings

from forked import ForkedProcess
from logged_process import LoggedProcess

pytest_plugins = ["cluster_run", "postgres_server", "redis_server"]

# How long one example takes is the machine's affair, and no law of the product.
settings.register_profile("baleen", deadline=None)
settings.load_profile("baleen")

LoggedProcess.start = ForkedProcess

# Programs in Go that end at once (kubectl, helm, buildah) otherwise spend a fifth of their time on garbage.
os.environ.setdefault("GOGC", "400")
