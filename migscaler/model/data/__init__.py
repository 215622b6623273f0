"""Facts about GPU models, captured from hardware, as JSON."""
