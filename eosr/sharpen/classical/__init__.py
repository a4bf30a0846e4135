"""Classical methods, one file each: numpy tile in, numpy tile out; they need no weights."""
