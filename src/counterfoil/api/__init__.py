"""The HTTP side: one port for probes, metrics and the admin routes."""
