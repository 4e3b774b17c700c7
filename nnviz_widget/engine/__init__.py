"""The torch side: records a model, answers questions about the run. Knows no widget, no message, no JSON."""
