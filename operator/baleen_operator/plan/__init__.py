"""Pure: what to do about what was seen. No clock, no network, no log."""
