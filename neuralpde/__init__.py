"""Graph neural networks as vector fields."""
