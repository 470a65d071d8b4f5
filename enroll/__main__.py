"""`python -m enroll` is `enroll`."""

from enroll.cli import main

main()
