"""What serves development beside the product."""
