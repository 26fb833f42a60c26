"""The checker: what agents put against what took place."""
