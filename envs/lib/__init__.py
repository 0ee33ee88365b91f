"""What several environments share: processes for slow engines, and an index to search."""
