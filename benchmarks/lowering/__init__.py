"""The measurements behind the tables that choose how an operation is computed, one file a family."""
