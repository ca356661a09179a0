"""What is remembered: the tables, their migrations, and every statement that reads or writes them.

A statement of the worker, and of a person who changes something, is SQL text in a module constant, which can be
pasted into EXPLAIN. SQLAlchemy's expressions are used for the read-only lookups of the command line, whose filters
vary, and the tables in `db.models` are there for those and for the migrations.

Rules for the statements:

- A set of rows is one parameter, a JSON text that `db.recordset` makes. A set of ids is an array.
- Rows come back with named columns, and are used by name.
- Compare with `statement_timestamp()`, which is stable and so may be looked up in an index. Write
  `clock_timestamp()`. Both are the database's clock, so that the clocks of the processes do not matter.
- The statement that locks the first rows of a worker's or the relay's transaction also sets
  `idle_in_transaction_session_timeout`: PostgreSQL then ends the session of a process that stops in the middle, and
  its locks with it. PgBouncer in transaction mode would not keep a setting of the session.
- Whoever locks several effects locks them by sequence. Whoever locks effects and circuits locks effects first.
"""
