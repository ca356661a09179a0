"""The running system as a black box: real processes, real signals, and the contract."""
