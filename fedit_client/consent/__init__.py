"""What the owner agrees to: its words, every yes and every taking back, and the limits that no server can loosen."""
