"""HTTP: who may ask, what is read from a request, and how it is answered."""
