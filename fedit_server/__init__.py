"""The aggregation server: it coordinates rounds and sees sums only, in trusted tasks more. It never imports torch."""
