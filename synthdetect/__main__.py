"""`python -m synthdetect`, which `MLproject` calls: it needs no installed package."""

from synthdetect.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
