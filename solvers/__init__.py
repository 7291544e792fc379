"""How time advances: steppers, step control, schedules. Tensors and callables only."""
