"""Policies: reading, checking, naming by content, scoping and comparing them. No decision is made here."""
