"""`python -m explorer` is the command `explorer`; the queue starts its runs this way."""

from explorer.cli import main

if __name__ == "__main__":
    main()
