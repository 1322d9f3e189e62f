"""Speed and memory of the library, beside a plain implementation and other packages; see README.md."""
