"""The stream: turns journalled deliveries into rows of the store."""
