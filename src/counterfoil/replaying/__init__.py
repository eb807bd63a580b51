"""Reads a log once more: compares it with the ledgers, writes what is missing, or rebuilds them beside."""
