"""Thin kopf handlers: an event becomes a key on the queue. No decisions, no waiting."""
