"""Partners: the users behind the links, the programs that the links belong to, and what partners earn."""
