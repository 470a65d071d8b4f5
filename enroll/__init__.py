"""Put a whole photo archive into a FaceSearch face library: every row once, none lost."""
