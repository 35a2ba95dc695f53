"""What is measured, by room."""
