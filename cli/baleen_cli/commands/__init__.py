"""Modules of commands. A command reads its options, calls, and prints; errors are printed in main.

A module is imported when one of its commands is asked for; commands that need other libraries are in another module.
"""
