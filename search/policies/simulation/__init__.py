"""Search policies that run simulations: Monte Carlo tree search and its relatives."""
