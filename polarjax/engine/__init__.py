"""The engine: trains any system on any data; knows no model."""
