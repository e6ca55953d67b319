"""What every member of a family keeps, shown by walking its folder."""
