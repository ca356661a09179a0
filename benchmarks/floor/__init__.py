"""The floor: the rows of our commands stage, written by hand with psycopg2. No decisions, no reads; no broker,
except for its latency (`queues.py`).

It knows beforehand which rows each command means: they are made outside the clock. Within it are the binding of the
values and the statements. `ways.py` has the ways in which people write rows, the fastest that was found among them.
"""
