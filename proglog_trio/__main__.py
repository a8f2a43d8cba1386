"""``python -m proglog_trio``: see `proglog_trio.cli`."""

from proglog_trio.cli.app import main

if __name__ == "__main__":
    main()
