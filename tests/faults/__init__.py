"""What happens when something breaks: real processes, real signals, real servers."""
