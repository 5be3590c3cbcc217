"""One device's part of a round: prepare, train, mask or seal, upload, and what is on disk before each step."""
