"""`invigilator demo`: plays a made-up exam session on the real system and checks every result."""
