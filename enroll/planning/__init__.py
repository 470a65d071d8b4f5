"""`enroll plan`: what a run would do, told without a call."""
