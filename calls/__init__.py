"""The shared vocabulary: what a webhook is, what it means, how it is verified and kept."""
