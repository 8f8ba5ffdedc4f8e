"""`python -m infold` is the same as `infold`."""

from infold.cli.main import main

if __name__ == "__main__":
    main()
