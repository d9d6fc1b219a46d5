"""The client: sessions, worker groups, matrices, libraries. No MPI and no Ray here."""
