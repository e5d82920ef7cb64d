"""Complete programs: ``python -m funcnets.examples.digits``."""
