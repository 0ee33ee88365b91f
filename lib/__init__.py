"""Housekeeping that run.py is made of: options, and files that survive whatever happens."""
