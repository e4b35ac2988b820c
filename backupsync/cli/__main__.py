"""`python -m backupsync.cli`."""

from backupsync.cli import main

main()
