"""What published students keep, and what is claimed of distillation."""
