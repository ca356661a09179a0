"""The floor: writes the rows of our commands stage by hand with psycopg2, as the lower limit of the work.

It decides nothing and reads nothing, and uses a broker only for its latency (`queues.py`). For that alone there are
also a relay and workers by hand, which carry out the effects (`effects.py`). The rows of each command are prepared
before the clock starts. The clock covers the binding of the values and the statements. `ways.py` has several ways
to write the rows, among them the fastest one that was found.
"""
