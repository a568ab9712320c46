"""Names, versions and aliases of datasets and models: the one place where a reference becomes a row."""
