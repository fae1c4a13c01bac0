"""The trainer process: the only rooms that import torch, transformers, unsloth, trl and peft."""
