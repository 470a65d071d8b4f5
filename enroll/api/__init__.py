"""What `import enroll` offers: the commands as functions, and what they take and return."""
