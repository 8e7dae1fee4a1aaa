"""What is written about a trained model: numbers (JSON, CSV), figures and one HTML page."""
