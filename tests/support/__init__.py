"""What tests stand on: real servers, real workers, and waiting with a deadline."""
