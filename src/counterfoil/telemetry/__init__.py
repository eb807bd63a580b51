"""What the worker tells of itself: logs, metrics, health."""
