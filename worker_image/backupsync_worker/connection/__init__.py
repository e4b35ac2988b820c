"""The wire's side: one connection after the other, and what was said on it."""
