"""What operators of rxoutflow run: regional platforms, and edge services of institutions."""
