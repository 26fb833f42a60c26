"""Operations in one SQLite file: a transport for ``prefactor-core``."""
