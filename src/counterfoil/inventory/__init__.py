"""Inventory: stock changes, what is in stock of each product, and what is told of those that are low."""
