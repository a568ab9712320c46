"""The control plane: FastAPI and SQLAlchemy. Never imports torch."""
