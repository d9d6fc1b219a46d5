"""The server: driver, launchers, workers, distributed matrices, libraries. No Ray here."""
