"""Tables, indexes and views, once for SQLite and PostgreSQL.

In: a connection to an empty database. Out: the schema, the same as the migrations make. May import: `gpuq.domain`,
SQLAlchemy.
"""
