"""What is learned when an episode ends: pure functions over records. Knows no store."""
