"""`enroll sync`: a library kept like its manifest."""
