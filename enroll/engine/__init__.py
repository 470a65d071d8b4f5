"""Where reading, preparing and calling are carried out."""
