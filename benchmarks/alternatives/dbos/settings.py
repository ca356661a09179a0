"""What the worker and the driver of DBOS have in common."""

import os

DATABASE_URL = os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://", 1)
NAME, QUEUE, WORKFLOW = "application", "commands", "change"
