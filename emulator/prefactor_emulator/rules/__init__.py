"""The API's rules: what each operation needs and changes, and what it is refused for."""
