"""The aggregation server: it coordinates rounds and sees nothing but sums. It never imports torch."""
