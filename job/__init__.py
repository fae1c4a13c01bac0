"""A fine-tuning job: a spec from the environment in, verified weights and a receipt out."""

__version__ = "0.1.0"
