"""One profile for all property tests: how long one example takes is the machine's affair, and no law of the product."""

from hypothesis import settings

pytest_plugins = ["cluster_run"]

settings.register_profile("baleen", deadline=None)
settings.load_profile("baleen")
