"""Clicks on affiliates' links: how many, of how many visitors, and how many were bots'."""
