"""The contract of transports, held against each of them."""
