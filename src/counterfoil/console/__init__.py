"""The pages under `/ops`: what the workers do, what is wrong, and what can be tried out."""
