"""`fedit-client demo`: a whole secure federation on one machine, and what it found out."""
