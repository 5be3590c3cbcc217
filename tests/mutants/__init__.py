"""Mutation testing of the masked sum: `make mutants`, what it found is told in MUTANTS.md beside this file."""
