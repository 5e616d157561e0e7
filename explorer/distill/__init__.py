"""Making students and teaching them."""
