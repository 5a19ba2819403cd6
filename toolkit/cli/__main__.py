"""`python -m toolkit.cli`, the same as `keydesk`."""

from toolkit.cli import main

if __name__ == "__main__":
    main()
