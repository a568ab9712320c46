"""Many trials of one network shape, trained as one batched model: each with its own data, seed, rate and penalties."""

from trainkit.fit.batched.run import fit_batch

__all__ = ["fit_batch"]
