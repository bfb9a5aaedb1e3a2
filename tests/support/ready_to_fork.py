"""What processes have at once that are forked from one which imported this, as its last module."""

import gc

import shipped_recipes  # noqa: F401  vocabularies: as long to read as all else to import
from baleen_sidecar.adapters.fetch import authorities

authorities()

# A search for garbage would write to each object, and so copy all memory that is shared.
gc.collect()
gc.freeze()
