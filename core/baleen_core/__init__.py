"""What operator and sidecar must agree on: policies, decisions, models. Pure: no clock, no file, no network, no log."""
