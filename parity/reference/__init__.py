"""What the reference implementation is asked, one module for each kind of answer."""
