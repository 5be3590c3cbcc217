"""The types of columns whose like differs between the databases."""

import sqlalchemy

Integer = sqlalchemy.BigInteger().with_variant(sqlalchemy.Integer(), "sqlite")
"""A whole number of 64 bits: PostgreSQL's own INTEGER ends at 2^31, SQLite's only INTEGER counts primary keys."""
