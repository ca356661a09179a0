"""`invigilator demo`: a made-up exam session on the real system, and a check of everything that came of it."""
