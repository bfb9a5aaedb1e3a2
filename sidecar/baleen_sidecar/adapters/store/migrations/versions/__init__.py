"""One file a migration: `m` and its number, then what it does."""
