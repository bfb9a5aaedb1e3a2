"""Everything that an installation can set."""
