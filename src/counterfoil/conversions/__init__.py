"""Conversions: which affiliate or link says that an order is its own."""
